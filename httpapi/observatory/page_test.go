package observatory_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/store"
)

// own is the list that the page shows for its own actor, in hex.
const own = `observatory.list(observatory.G.rows.findIndex(r => r.a?.self))`

// mutate makes k random edits at node i, each on the list that it meets: ops of
// others come in meanwhile.
func (c *cluster) mutate(i, k int, rng *rand.Rand) {
	c.t.Helper()
	for range k {
		_, err := c.nodes[i].Actor().Edit(context.Background(), func(g *genome.Genome) (store.Edit, error) {
			if g.Len() > 30 && rng.IntN(3) == 0 {
				return store.Edit{Delete: true, At: rng.IntN(g.Len()), N: 1}, nil
			}
			return store.Edit{At: rng.IntN(g.Len() + 1), Genes: []byte{byte(rng.IntN(256))}}, nil
		})
		if err != nil {
			c.t.Error(err)
			return
		}
	}
}

// TestPartitionHeals: the verdict goes from converged over partitioned, while
// links are cut and both sides edit, back to converged when they are healed;
// meanwhile the rows tell who lacks what, and all the time the page places
// genes where the nodes do.
func TestPartitionHeals(t *testing.T) {
	c := startCluster(t, 3)
	tb := open(t, c.url(0)+"/")
	tb.pattern = "getImageData" // of this test
	tb.wait(word + ` === "converged"`)
	var all sync.WaitGroup
	for i := range 3 { // at once, so that there are siblings
		all.Go(func() { c.mutate(i, 15, rand.New(rand.NewPCG(uint64(i), 1))) })
	}
	all.Wait()
	same := func() {
		t.Helper()
		tb.wait(word + ` === "converged"`)
		until(t, "all nodes equal", func() bool { return c.genome(0) == c.genome(1) && c.genome(0) == c.genome(2) })
		tb.wait(fmt.Sprintf(`%s === %q`, own, c.genome(0)))
		// Rows of equal actors are the same pixels.
		tb.wait(`new Set([...document.querySelectorAll("#strips canvas")].map(c => c.toDataURL())).size === 1`)
	}
	same()

	c.link(true, []int{0, 1}, []int{2})
	c.mutate(0, 4, rand.New(rand.NewPCG(4, 1)))
	c.mutate(1, 4, rand.New(rand.NewPCG(5, 1)))
	c.mutate(2, 4, rand.New(rand.NewPCG(6, 1)))
	tb.wait(word + ` === "partitioned"`)
	tb.wait(`document.getElementById("word").textContent === "PARTITIONED {0,1} {2}"`)
	// 2 lacks exactly the eight changes, four by each of the others: in the table, and as marks.
	tb.wait(`[...document.querySelectorAll("#table tbody tr")].map(r => [...r.querySelectorAll(".num")].slice(0, 4).map(d => d.textContent).join(" ")).join("|") === "· · · ·|· · · ·|4 4 · 8"`)
	tb.wait(`(() => { const c = [...document.querySelectorAll("#strips canvas")].map(c => c.toDataURL()); return c[0] === c[1] && c[0] !== c[2]; })()`)

	c.link(false, []int{0, 1}, []int{2})
	same()
	tb.wait(`observatory.S.story.some(l => /^CONVERGED: all 3 equal, after/.test(l.text))`)
	if n := eval[int](tb, `observatory.S.reloads`); n != 1 {
		t.Errorf("the list was loaded %d times: the page placed genes elsewhere than the node", n)
	}
	// What was shown live is what a new load shows.
	tb.do(chromedp.Reload())
	tb.wait(word + ` === "converged"`)
	tb.wait(fmt.Sprintf(`%s === %q`, own, c.genome(0)))
}

// TestClickNamesTheOp: a click on a gene tells which op made it, when and how
// it came, where it stands, and who has it.
func TestClickNamesTheOp(t *testing.T) {
	c := startCluster(t, 2)
	c.insert(0, 0, "0a0b0c")
	until(t, "actor 1 has them", func() bool { return c.genome(1) == "0a0b0c" })
	c.insert(1, 1, "ee")
	until(t, "actor 0 has it", func() bool { return c.genome(0) == "0aee0b0c" })
	tb := open(t, c.url(0)+"/")
	tb.wait(word + ` === "converged"`)
	tb.wait(`observatory.G.cols.length === 4 && observatory.G.rows.length === 2`)
	box := eval[[]float64](tb, `(() => { const r = document.querySelector("#strips canvas").getBoundingClientRect(); return [r.x, r.y, r.height]; })()`)
	cell := 26.0 // four genes: columns have their greatest width
	tb.do(chromedp.MouseClickXY(box[0]+1.5*cell, box[1]+box[2]/2))
	tb.wait(`document.querySelector("#gene .value")?.textContent === "ee" && !/…/.test(document.getElementById("gene").textContent)`)
	got := eval[string](tb, `document.getElementById("gene").innerText`)
	replica := c.nodes[1].Actor().Replica().String()
	for _, want := range []string{"by\na1\nactor 1", replica + ".1, no. 4 in this log", "via post from actor 1", "between\n0a (0.1) and 0b (0.2)", "a0 has it", "deleted by\n–"} {
		if !strings.Contains(strings.ReplaceAll(got, "\n\n", "\n"), want) {
			t.Errorf("the gene panel says %q, want %q in it", got, want)
		}
	}
	// Now an op is made while the page looks on: it tells when it reached the other.
	tb.do(chromedp.SetValue(chromedp.ID("at"), "4"), chromedp.SetValue(chromedp.ID("hex"), "cc"), chromedp.Click(chromedp.ID("insert")))
	tb.wait(`observatory.G.cols.length === 5`)
	tb.do(chromedp.MouseClickXY(box[0]+4.5*cell, box[1]+box[2]/2))
	tb.wait(`document.querySelector("#gene .value")?.textContent === "cc" && /a1 \+\d/.test(document.getElementById("gene").textContent)`)
}

// genomeAt replays the log of a node up to a position, as inspect-log at does.
func (c *cluster) genomeAt(i int, pos uint64) string {
	c.t.Helper()
	g := genome.NewFromConfig(genome.Config{NoHistory: true})
	for rec, err := range c.nodes[i].Actor().Records(context.Background(), 1) {
		if err != nil {
			c.t.Fatal(err)
		}
		if rec.LSN > pos {
			break
		}
		op := rec.Op
		if n := pos - rec.LSN + 1; n < uint64(op.Len()) {
			op = op.Head(int(n))
		}
		if _, err := g.Apply(op); err != nil {
			c.t.Fatal(err)
		}
	}
	return g.String()
}

// TestTimeTravel: the slider at k shows what replaying k events of the log
// gives; the address links the moment; arrow keys step; the past is not edited.
func TestTimeTravel(t *testing.T) {
	c := startCluster(t, 2)
	rng := rand.New(rand.NewPCG(7, 7))
	for range 6 {
		c.mutate(0, 8, rng)
		c.mutate(1, 8, rng)
	}
	tb := open(t, c.url(0)+"/")
	tb.wait(word + ` === "converged"`)
	tb.wait(fmt.Sprintf(`%s === %q`, own, c.genome(0)))
	end := c.nodes[0].Actor().LSN()
	shown := func(pos uint64) {
		t.Helper()
		tb.wait(fmt.Sprintf(`observatory.G.rows[0]?.at === %d`, pos))
		if got, want := eval[string](tb, `observatory.list(0)`), c.genomeAt(0, pos); got != want {
			t.Errorf("at %d the page shows %s, the log gives %s", pos, got, want)
		}
		if got := eval[string](tb, `location.hash`); got != fmt.Sprintf("#at=%d", pos) {
			t.Errorf("at %d the address ends in %q", pos, got)
		}
	}
	for _, pos := range []uint64{0, 1, end / 3, end / 2, end - 1} {
		eval[bool](tb, fmt.Sprintf(`(() => { const t = document.getElementById("time"); t.value = %d; return t.dispatchEvent(new Event("input")); })()`, pos))
		shown(pos)
	}
	if !eval[bool](tb, `document.getElementById("insert").disabled && document.getElementById("delete").disabled`) {
		t.Error("the past can be edited")
	}
	tb.do(chromedp.Focus(chromedp.ID("time")))
	for _, key := range []string{"ArrowLeft", "ArrowLeft", "ArrowRight"} {
		tb.press(key, "")
	}
	shown(end - 2)
	tb.do(chromedp.Reload()) // the address is a link to the moment
	shown(end - 2)
	tb.do(chromedp.Click(chromedp.ID("live")))
	tb.wait(`observatory.G.rows.length === 2 && location.hash === ""`)
}

// press presses a key, which types text unless that is empty.
func (tb *tab) press(key, text string) {
	tb.t.Helper()
	codes := map[string]int64{"ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "Delete": 46}
	call(tb, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: key, Text: text, WindowsVirtualKeyCode: codes[key]})
	call(tb, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyUp, Key: key, WindowsVirtualKeyCode: codes[key]})
}

// TestEditing: an edit made on one actor's page, by form or by keys alone,
// shows on another's; a refusal is shown with what the node says.
func TestEditing(t *testing.T) {
	c := startCluster(t, 2)
	c.insert(0, 0, "0102030405")
	until(t, "actor 1 has them", func() bool { return c.genome(1) == "0102030405" })
	a, b := open(t, c.url(0)+"/"), open(t, c.url(1)+"/")
	a.pattern = "422"
	a.wait(word + ` === "converged"`)
	b.wait(word + ` === "converged"`)
	a.do(chromedp.SetValue(chromedp.ID("at"), "2"), chromedp.SetValue(chromedp.ID("hex"), "Aa"), chromedp.Click(chromedp.ID("insert")))
	b.wait(own + ` === "0102aa030405"`)
	a.do(chromedp.SetValue(chromedp.ID("at"), "0"), chromedp.Click(chromedp.ID("delete")))
	b.wait(own + ` === "02aa030405"`)
	a.wait(own + ` === "02aa030405"`)

	a.do(chromedp.Focus(chromedp.ID("strips"))) // keys: the third gene, delete it, insert before the next
	for range 3 {
		a.press("ArrowRight", "")
	}
	a.press("Delete", "")
	b.wait(own + ` === "02aa0405"`)
	a.wait(own + ` === "02aa0405"`)
	a.press("Home", "")
	a.press("e", "e")
	a.press("f", "f")
	b.wait(own + ` === "ef02aa0405"`)

	a.do(chromedp.SetValue(chromedp.ID("at"), "9999"), chromedp.Click(chromedp.ID("insert")))
	a.wait(`/^422 index_out_of_range: /.test(document.getElementById("said").textContent) && document.getElementById("said").className === "error"`)
}

// TestCutByHand: with chaos on, the page cuts and heals links of its own node,
// one or all.
func TestCutByHand(t *testing.T) {
	c := startCluster(t, 3)
	tb := open(t, c.url(0)+"/")
	tb.wait(word + ` === "converged" && document.querySelectorAll("#table td button").length === 2`)
	tb.do(chromedp.Click(chromedp.CSS("#table tr:nth-child(3) button"))) // of actor 2
	tb.wait(`observatory.S.actors.get(2).link === "cut" && document.querySelector("#table tr:nth-child(3) button").textContent === "heal"`)
	tb.wait(`/via a1/.test(document.getElementById("strips").textContent)`) // only one link is cut: nothing is lacking
	c.insert(2, 0, "0a")
	tb.wait(word + ` === "converged" && ` + own + ` === "0a"`)
	tb.do(chromedp.Click(chromedp.ID("cutall")))
	tb.wait(`document.getElementById("word").textContent === "UNREACHABLE"`)
	c.insert(0, 0, "bb")
	tb.wait(`document.getElementById("word").textContent === "PARTITIONED {0} {1,2}"`)
	tb.do(chromedp.Click(chromedp.ID("healall")))
	tb.wait(word + ` === "converged"`)
	until(t, "actor 2 has it", func() bool { return c.genome(2) == "bb0a" })
}

// TestPauseMutation: the button stops and starts the actor's own changes.
func TestPauseMutation(t *testing.T) {
	c := startCluster(t, 1)
	paused := func() bool {
		v, err := httpapi.NewClient(c.nodes[0].URL()).Version(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return v.Paused
	}
	tb := open(t, c.url(0)+"/")
	tb.wait(`document.getElementById("pause").textContent === "Resume mutation"`)
	tb.do(chromedp.Click(chromedp.ID("pause")))
	until(t, "mutation runs", func() bool { return !paused() })
	tb.wait(`document.getElementById("pause").textContent === "Pause mutation" && observatory.M.pos > 3`)
	tb.do(chromedp.Click(chromedp.ID("pause")))
	until(t, "mutation is paused", paused)
	tb.wait(`document.getElementById("pause").getAttribute("aria-pressed") === "true"`)
}

// TestServerStops: a page whose node is gone says how old its news are; when
// the node is back it goes on with what it missed, and nothing twice.
func TestServerStops(t *testing.T) {
	c := startCluster(t, 2)
	c.insert(0, 0, "010203")
	tb := open(t, c.url(0)+"/")
	tb.pattern = "ERR_"
	tb.wait(word + ` === "converged"`)
	c.insert(0, 1, "0a")
	tb.wait(own + ` === "010a0203"`)
	c.stop(0)
	tb.wait(word + ` === "stale" && /^stale \d+ s$/.test(document.getElementById("word").textContent)`)
	c.insert(1, 0, "bb") // missed by node and page
	c.start(0)
	tb.wait(word + ` === "converged"`)
	c.insert(0, 0, "cc")
	until(t, "both equal", func() bool { return len(c.genome(0)) == 12 && c.genome(0) == c.genome(1) })
	tb.wait(fmt.Sprintf(`%s === %q`, own, c.genome(0)))
	if d, r := eval[int](tb, `observatory.S.duplicates`), eval[int](tb, `observatory.S.reloads`); d != 0 || r != 1 {
		t.Errorf("%d ops came twice and the list was loaded %d times, want 0 and 1", d, r)
	}
}

// TestSevenTabs: a browser has six connections to a server and each page
// holds one; the seventh must load all the same.
func TestSevenTabs(t *testing.T) {
	c := startCluster(t, 1)
	c.insert(0, 0, "0102")
	var tabs []*tab
	for range 7 {
		tb := open(t, c.url(0)+"/")
		tabs = append(tabs, tb)
	}
	c.insert(0, 1, "03")
	for _, tb := range tabs {
		tb.wait(word + ` === "converged" && ` + own + ` === "010302"`)
	}
}

// TestReport: the report is one file that needs nothing else and says what the
// page said.
func TestReport(t *testing.T) {
	c := startCluster(t, 2)
	c.insert(0, 0, "010203")
	tb := open(t, c.url(0)+"/")
	tb.wait(word + ` === "converged" && document.querySelectorAll("#strips canvas").length === 2`)
	eval[bool](tb, `(() => { const make = URL.createObjectURL; URL.createObjectURL = b => { b.text().then(t => window.saved = t); return make(b); };
		HTMLAnchorElement.prototype.click = () => {}; document.getElementById("report").click(); return true; })()`)
	tb.wait(`window.saved`)
	html := eval[string](tb, `window.saved`)
	for _, want := range []string{"CONVERGED", "All 2 actors hold the same 3 genes", `src="data:image/png;base64,`, `&#34;genome&#34;: &#34;010203&#34;`, "<style>:root"} {
		if !strings.Contains(html, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	for _, never := range []string{"<script", "<link", `src="/`, `href="/`, "<button"} {
		if strings.Contains(html, never) {
			t.Errorf("the report has %q", never)
		}
	}
}

// TestScreenshots: at the sizes and schemes that people have, nothing is
// wider than the window. With OBSERVATORY_SHOTS=DIR the pictures are kept, to
// be looked at.
func TestScreenshots(t *testing.T) {
	c := startCluster(t, 5)
	rng := rand.New(rand.NewPCG(1, 2))
	tb := open(t, c.url(0)+"/")
	for i := range 5 {
		c.mutate(i, 12, rng)
	}
	c.known(0)
	tb.wait(word + ` === "converged"`)
	c.link(true, []int{0, 1, 2}, []int{3, 4})
	tb.wait(word + ` === "unreachable"`)
	for range 3 {
		for i := range 5 {
			c.mutate(i, 2, rng)
		}
	}
	tb.wait(word + ` === "partitioned"`)
	tb.do(chromedp.Focus(chromedp.ID("strips")))
	tb.press("ArrowRight", "")
	tb.wait(`document.querySelector("#gene .value")`)
	dir := os.Getenv("OBSERVATORY_SHOTS")
	shoot := func(state string) {
		t.Helper()
		for _, size := range [][2]int64{{1280, 720}, {400, 800}, {3840, 2160}} {
			tb.do(chromedp.EmulateViewport(size[0], size[1]))
			for _, scheme := range []string{"light", "dark"} {
				call(tb, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
				tb.wait(fmt.Sprintf(`innerWidth === %d && matchMedia("(prefers-color-scheme: %s)").matches`, size[0], scheme))
				if over := eval[int](tb, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
					t.Errorf("%s at %dx%d: %d px wider than the window", state, size[0], size[1], over)
				}
				if dir != "" {
					png := get(tb, chromedp.FullScreenshot(100))
					if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", state, size[0], scheme)), png, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	shoot("partitioned")
	c.link(false, []int{0, 1, 2}, []int{3, 4})
	tb.wait(word + ` === "converged"`)
	shoot("converged")
}
