package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// getLog streams records from a position, and with follow=true waits for more.
func (n *Node) getLog(w http.ResponseWriter, r *http.Request) error {
	from, err := intParam(r, "from", 1)
	if err != nil {
		return err
	}
	limit, err := intParam(r, "limit", 0)
	if err != nil {
		return err
	}
	follow, _ := strconv.ParseBool(r.URL.Query().Get("follow"))
	s := &logStream{n: n, w: w, rc: http.NewResponseController(w), next: max(from, 1), limit: limit}
	if follow {
		select {
		case n.streams <- struct{}{}:
			defer func() { <-n.streams }()
		default:
			return problem(codeBusy, fmt.Sprintf("%d logs are being followed", maxStreams), "try again later, or without follow")
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	return s.run(r.Context(), follow)
}

// logStream is one answer of getLog.
type logStream struct {
	n     *Node
	w     io.Writer
	rc    *http.ResponseController
	next  uint64 // position of the next record
	limit uint64 // records still to send; 0: all
}

func (s *logStream) run(ctx context.Context, follow bool) error {
	for {
		changed := s.n.actor.Changed()
		done, err := s.records(ctx)
		if err != nil || done || !follow {
			return err
		}
		if err := s.rc.Flush(); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-s.n.streamsCtx.Done():
			return nil
		case <-s.n.actor.Done():
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// records sends what is there; done says that the limit is reached.
func (s *logStream) records(ctx context.Context) (done bool, err error) {
	enc := json.NewEncoder(s.w)
	for rec, err := range s.n.actor.Records(ctx, s.next) {
		if err != nil {
			return false, err
		}
		_ = s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // each step has its own
		if err := enc.Encode(NewLogRecord(rec)); err != nil {
			return false, err
		}
		s.next = rec.LSN + uint64(rec.Op.Len())
		if s.limit > 0 {
			if s.limit--; s.limit == 0 {
				return true, nil
			}
		}
	}
	return false, nil
}

func (n *Node) getLogInfo(w http.ResponseWriter, r *http.Request) error {
	self := n.actor.Replica()
	return writeJSON(w, http.StatusOK, LogInfo{
		Path: n.logPath(), Actor: self.Actor(), Epoch: self.Epoch().String(), Replica: self,
		Cluster: n.cluster, Records: n.actor.LSN(), PID: os.Getpid(), URL: n.url,
	})
}

func (n *Node) logPath() string { return filepath.Join(n.actor.Opening().Dir, "log.db") }

// logBytes returns the size of the log file, 0 if that cannot be told.
func (n *Node) logBytes() int64 {
	fi, err := os.Stat(n.logPath())
	if err != nil {
		return 0
	}
	return fi.Size()
}

func (n *Node) getLogStats(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, n.actor.Stats())
}

// getLogVerify reads the log again and compares what it says with what is
// served. The log may have grown meanwhile: it is read up to the state's vector.
func (n *Node) getLogVerify(w http.ResponseWriter, r *http.Request) error {
	st, err := n.actor.State(r.Context())
	if err != nil {
		return n.storeProblem(err)
	}
	if err := n.older.take(r.Context()); err != nil {
		return err
	}
	defer n.older.give()
	v := LogVerification{Served: st.Digest}
	g, err := n.replay(r.Context(), st.Version)
	switch {
	case err != nil:
		v.Problem = err.Error()
	default:
		v.Records, v.Genes, v.Replayed = g.Ops(), g.Len(), g.Digest()
		if v.OK = v.Replayed == v.Served && g.Version().Equal(st.Version); !v.OK {
			v.Problem = "the log does not give the genome that is served"
		}
	}
	return writeJSON(w, http.StatusOK, v)
}

// getBackup sends a consistent copy. It is written to a file first: a slow
// reader must not hold a transaction open, or the log grows meanwhile.
func (n *Node) getBackup(w http.ResponseWriter, r *http.Request) (err error) {
	if err := n.older.take(r.Context()); err != nil { // one at a time, as it costs a copy of the log
		return err
	}
	defer n.older.give()
	f, err := os.CreateTemp("", "crdt-genome-backup-*")
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer func() {
		_ = f.Close() // only read from since it was written
		_ = os.Remove(f.Name())
	}()
	if err := n.actor.Backup(r.Context(), f); err != nil {
		return n.storeProblem(err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="actor-%d-%s.db"`, n.cfg.Store.Actor, time.Now().UTC().Format("20060102T150405Z")))
	_, err = io.Copy(&patientWriter{w, http.NewResponseController(w)}, f)
	return err
}

// patientWriter gives each write its own deadline.
type patientWriter struct {
	w  io.Writer
	rc *http.ResponseController
}

func (p *patientWriter) Write(b []byte) (int, error) {
	_ = p.rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	return p.w.Write(b)
}
