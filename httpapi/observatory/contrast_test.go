package observatory_test

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"crdt-genome/httpapi/observatory"
)

// leastContrast is that of WCAG 2.1, 1.4.3, for text of any size.
const leastContrast = 4.5

func asset(t *testing.T, name string) string {
	t.Helper()
	a, ok := observatory.Get(name)
	if !ok {
		t.Fatalf("no asset %s", name)
	}
	return string(a.Body)
}

// tokens returns the colours that a block of custom properties sets.
func tokens(block string) map[string]string {
	all := map[string]string{}
	for _, m := range regexp.MustCompile(`--([\w-]+):\s*(#[0-9a-fA-F]{3,6})\b`).FindAllStringSubmatch(block, -1) {
		all[m[1]] = m[2]
	}
	return all
}

// themes returns the tokens of the page in light and in dark.
func themes(t *testing.T, css string) map[string]map[string]string {
	t.Helper()
	roots := regexp.MustCompile(`:root\s*\{([^}]*)\}`).FindAllStringSubmatch(css, -1)
	if len(roots) != 2 {
		t.Fatalf("%d blocks of tokens, want light and dark", len(roots))
	}
	light, dark := tokens(roots[0][1]), tokens(roots[1][1])
	for name := range light {
		if dark[name] == "" {
			t.Errorf("--%s has no value in dark", name)
		}
	}
	return map[string]map[string]string{"light": light, "dark": dark}
}

// luminance is the relative luminance of WCAG 2.1.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	digits := strings.TrimPrefix(hex, "#")
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	n, err := strconv.ParseUint(digits, 16, 24)
	if err != nil || len(digits) != 6 {
		t.Fatalf("%q is no colour: %v", hex, err)
	}
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		c := float64(n>>(16-8*i)&0xff) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	l, k := luminance(t, a), luminance(t, b)
	return (max(l, k) + 0.05) / (min(l, k) + 0.05)
}

func TestContrastFormula(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want float64
	}{{"#000", "#fff", 21}, {"#fff", "#ffffff", 1}, {"#767676", "#fff", 4.54}, {"#0000ff", "#fff", 8.59}} {
		if got := contrast(t, c.a, c.b); math.Abs(got-c.want) > 0.01 {
			t.Errorf("contrast of %s and %s = %.3f, want %.2f", c.a, c.b, got, c.want)
		}
	}
}

// surfaces are what text without a ground of its own may stand on: the page, a
// card, and, for the tools in it, the bar with the verdict.
var surfaces = map[string][]string{
	"":     {"bg", "card"},
	"ink":  {"bg", "card", "button", "good-bg", "warn-bg", "cut-bg", "none-bg"},
	"dim":  {"bg", "card", "good-bg", "warn-bg", "cut-bg", "none-bg"},
	"card": {"ink"}, // the tip over a strip, which is the other way round
	"bad":  {"bad-bg"},
}

// TestContrast computes the contrast of every colour that a rule gives to text:
// to the ground that the same rule sets, or else to all that it may stand on.
func TestContrast(t *testing.T) {
	css := asset(t, "app.css")
	rules := regexp.MustCompile(`([^{}]+)\{([^{}]*)\}`).FindAllStringSubmatch(css, -1)
	color := regexp.MustCompile(`(?:^|[;\s])color:\s*var\(--([\w-]+)\)`)
	ground := regexp.MustCompile(`background(?:-color)?:\s*var\(--([\w-]+)\)`)
	for theme, of := range themes(t, css) {
		checked := 0
		check := func(selector, text, on string) {
			checked++
			if of[text] == "" || of[on] == "" {
				t.Errorf("%s: %s: no colour --%s or --%s", theme, selector, text, on)
			} else if c := contrast(t, of[text], of[on]); c < leastContrast {
				t.Errorf("%s: %s: --%s %s on --%s %s has a contrast of %.2f, want %v", theme, selector, text, of[text], on, of[on], c, leastContrast)
			}
		}
		for _, r := range rules {
			selector, body := strings.TrimSpace(r[1]), r[2]
			text := color.FindStringSubmatch(body)
			if text == nil {
				continue
			}
			on := surfaces[text[1]]
			if on == nil {
				on = surfaces[""]
			}
			if g := ground.FindStringSubmatch(body); g != nil {
				on = []string{g[1]}
			}
			for _, o := range on {
				check(selector, text[1], o)
			}
		}
		for _, on := range surfaces["ink"] { // inherited by what has no rule
			check("body", "ink", on)
		}
		if checked < 30 {
			t.Errorf("%s: only %d pairs were found in the style sheet", theme, checked)
		}
	}
}

// TestGeneContrast computes the contrast of what is written on the colour of an
// author, by the page's own rule.
func TestGeneContrast(t *testing.T) {
	js := asset(t, "app.js")
	hues := regexp.MustCompile(`const HUES = \[([^\]]*)\]`).FindStringSubmatch(js)
	rule := regexp.MustCompile(`return ([.\d]+) \* r \+ ([.\d]+) \* g \+ ([.\d]+) \* b > (\d+) \? '#000' : '#fff'`).FindStringSubmatch(js)
	if hues == nil || rule == nil {
		t.Fatal("app.js has no HUES, or another inkOn")
	}
	var k [4]float64
	for i := range k {
		k[i], _ = strconv.ParseFloat(rule[i+1], 64) // digits, as the pattern says
	}
	all := regexp.MustCompile(`#[0-9a-f]{6}`).FindAllString(hues[1], -1)
	if len(all) < 8 || len(slices.Compact(slices.Sorted(slices.Values(all)))) != len(all) {
		t.Fatalf("hues %q", all)
	}
	for _, h := range all {
		n, _ := strconv.ParseUint(h[1:], 16, 24)
		ink := "#fff"
		if k[0]*float64(n>>16)+k[1]*float64(n>>8&0xff)+k[2]*float64(n&0xff) > k[3] {
			ink = "#000"
		}
		if c := contrast(t, ink, h); c < leastContrast {
			t.Errorf("%s on %s has a contrast of %.2f, want %v", ink, h, c, leastContrast)
		}
	}
}
