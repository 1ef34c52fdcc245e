package observatory_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// TestScreenshots: at the sizes and schemes that people have, nothing is
// wider than the window. With OBSERVATORY_SHOTS=DIR the pictures are kept, to
// be looked at.
func TestScreenshots(t *testing.T) {
	c := startCluster(t, 5)
	rng := rand.New(rand.NewPCG(1, 2))
	tb := open(t, c.url(0))
	tb.wait(word + ` === "converged"`)
	n := 0
	mutate := func(i, k int) {
		for range k {
			g := len(c.genome(i)) / 2
			if g > 40 && rng.IntN(3) == 0 {
				c.remove(i, rng.IntN(g), 1)
			} else {
				c.insert(i, rng.IntN(g+1), fmt.Sprintf("%02x", rng.IntN(256)))
			}
			n++
			time.Sleep(30 * time.Millisecond)
		}
	}
	for i := range 5 {
		mutate(i, 14)
	}
	tb.wait(word + ` === "converged"`)
	c.link(true, []int{0, 1, 2}, []int{3, 4})
	time.Sleep(3 * time.Second)
	for range 3 {
		for i := range 5 {
			mutate(i, 2)
			time.Sleep(300 * time.Millisecond)
		}
	}
	tb.wait(word + ` === "partitioned"`)
	time.Sleep(time.Second)
	shots := os.Getenv("OBSERVATORY_SHOTS")
	shoot := func(state string) {
		for _, size := range [][2]int64{{1280, 720}, {400, 800}} {
			for _, scheme := range []string{"light", "dark"} {
				var png []byte
				tb.do(chromedp.EmulateViewport(size[0], size[1]))
				call(tb, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
				time.Sleep(300 * time.Millisecond)
				if over := eval[int](tb, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
					t.Errorf("%s at %dx%d: %d px wider than the window", state, size[0], size[1], over)
				}
				if shots != "" {
					if size[0] == 400 {
						png = get(tb, chromedp.FullScreenshot(100))
					} else {
						png = get(tb, chromedp.CaptureScreenshot())
					}
					os.WriteFile(filepath.Join(shots, fmt.Sprintf("%s-%d-%s.png", state, size[0], scheme)), png, 0o600)
				}
			}
		}
	}
	eval[bool](tb, `document.querySelector("#strips canvas").dispatchEvent(new MouseEvent("click",{bubbles:true}))`)
	shoot("partitioned")
	c.link(false, []int{0, 1, 2}, []int{3, 4})
	tb.wait(word + ` === "converged"`)
	shoot("converged")
}
