package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/httpapi/membership"
	"crdt-genome/store"
	"crdt-genome/store/signed"
)

// signOptions are the flags of package signed.
type signOptions struct {
	on     bool
	roster string
}

func (o *signOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.on, "sign", false, "sign own ops, and take of others only what --roster says that they have signed")
	f.StringVar(&o.roster, "roster", "", "file with the public keys of all actors, as crdt-genome key prints them; read again on SIGHUP")
}

func (o *signOptions) args() []string {
	if !o.on {
		return nil
	}
	return []string{"--sign", "--roster", o.roster}
}

func (o *signOptions) check() error {
	if o.on != (o.roster != "") {
		return usageError("crdt-genome key prints an actor's line of the roster", "--sign and --roster FILE go together")
	}
	return nil
}

// load reads the roster; nil if nothing is signed.
func (o *signOptions) load() (*signed.Roster, error) {
	if !o.on {
		return nil, nil
	}
	r, err := signed.LoadRoster(o.roster)
	if err != nil {
		return nil, usageError("", "--roster: %v", err)
	}
	return r, nil
}

// signEach makes each actor sign with its own key.
func signEach(cfgs []httpapi.Config, roster *signed.Roster) error {
	if roster == nil {
		return nil
	}
	for i := range cfgs {
		s := &cfgs[i].Store
		key, err := signed.ReadKey(store.KeyPath(s.Data, s.Actor))
		if errors.Is(err, fs.ErrNotExist) {
			return usageError(fmt.Sprintf("crdt-genome key --actor %d --data %s makes one and prints its line of the roster", s.Actor, s.Data), "actor %d has no key", s.Actor)
		}
		if err != nil {
			return usageError("", "the key of actor %d: %v", s.Actor, err)
		}
		s.Sign = &store.Signing{Key: key, Roster: roster}
	}
	return nil
}

// makeKey returns an actor's public key, which is made if there is none.
func makeKey(data string, a genome.ActorID) (ed25519.PublicKey, error) {
	path := store.KeyPath(data, a)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	key, err := signed.OpenKey(path)
	if err != nil {
		return nil, err
	}
	return key.Public().(ed25519.PublicKey), nil // of an ed25519 key it is one
}

// makeRoster makes keys for the actors of a run, and their roster.
func (o *runOptions) makeRoster() error {
	if !o.sign.on || o.sign.roster != "" {
		return o.sign.check()
	}
	var text strings.Builder
	for i := range o.count {
		key, err := makeKey(o.data, genome.ActorID(i))
		if err != nil {
			return err
		}
		fmt.Fprintln(&text, signed.RosterLine(genome.ActorID(i), key))
	}
	o.sign.roster = filepath.Join(o.data, "roster")
	return writeFileAtomic(o.sign.roster, []byte(text.String()))
}

type keyOptions struct {
	data   string
	actor  uint32
	actors string
}

func newKeyCmd(a *app) *cobra.Command {
	var o keyOptions
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Print an actor's line of the roster, and make its key if it has none",
		Long: `Prints the public key that an actor signs with (serve --sign), as a line of the
roster. If the actor has no key yet, one is made: PKCS #8 in PEM, mode 0600, in
its folder. It never leaves the machine. Put the lines of all actors into one
file, and give that to all.`,
		Example: `  crdt-genome key --actor 0 >> roster
  crdt-genome key --actors 0-2 --data /var/lib/genome > roster
  crdt-genome serve --actor 0 --count 3 --base 8000 --sign --roster roster`,
		Args: wantArgs(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.stateDirectory(cmd.Flags(), &o.data)
			if cmd.Flags().Changed("actor") == (o.actors != "") {
				return usageError(exampleOf(cmd), "key needs --actor or --actors")
			}
			return a.key(o)
		},
	}
	f := cmd.Flags()
	dataFlag(f, &o.data)
	f.Uint32VarP(&o.actor, "actor", "a", 0, "whose key")
	f.StringVar(&o.actors, "actors", "", "the keys of several, such as 0-2,9")
	return cmd
}

// keyReply is the JSON of the key command, a line for each actor.
type keyReply struct {
	Actor  uint32 `json:"actor"`
	Key    []byte `json:"key"` // public, base64
	Roster string `json:"roster"`
	File   string `json:"file"` // the private one
}

func (a *app) key(o keyOptions) error {
	set := membership.One(o.actor)
	if o.actors != "" {
		var err error
		if set, err = membership.ParseSet(o.actors); err != nil {
			return usageError("", "--actors %s: %v", o.actors, err)
		}
	}
	for n := range set.All() {
		id := genome.ActorID(n)
		key, err := makeKey(o.data, id)
		if err != nil {
			return err
		}
		line := signed.RosterLine(id, key)
		if a.opts.json {
			err = a.printJSON(keyReply{n, key, line, store.KeyPath(o.data, id)})
		} else {
			_, err = fmt.Fprintln(a.stdout, line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
