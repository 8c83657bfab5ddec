package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// plotIPC writes an SVG of each test of group ipc that has a file: docs/ipc-FILE.svg. What the host is called does not
// matter, what it is does.
func (b *bench) plotIPC(dir string) error {
	note := time.Now().UTC().Format(time.DateOnly) + ", " + hostKind()
	for _, figures := range b.ipcByTest() {
		for _, test := range ipcTests {
			if test.name != figures[0].Test || test.file == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, "ipc-"+test.file+".svg"), []byte(plot(figures, note)), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

var colours = map[string]string{sameCore: "#4477aa", crossCore: "#cc6677", spinning: "#228833", alone: "#4477aa"}

// plot draws a bar for each figure, in groups by name, on a logarithmic axis. A thin line goes on to the 99 %.
func plot(figures []ipcFigure, note string) string {
	const left, width, bar, gap, top = 250, 560, 13, 9, 50
	places, names := columns(figures)
	low, high := math.Inf(1), 0.0
	for _, f := range figures {
		if f.Problem == "" {
			low, high = min(low, f.Value), max(high, f.Value, f.P99)
		}
	}
	// Whole decades, with room for the label of the longest bar.
	from, to := math.Floor(math.Log10(low*0.8)), math.Log10(high*6)
	x := func(v float64) float64 { return left + (math.Log10(v)-from)/(to-from)*width }

	var body strings.Builder
	y := float64(top)
	for _, name := range names {
		begin := y
		for _, place := range places {
			f, ok := find(figures, name, place)
			if !ok || f.Problem != "" {
				continue
			}
			end, label := x(f.Value), digits(f.Value)
			fmt.Fprintf(&body, `<rect x="%d" y="%.0f" width="%.1f" height="%d" fill="%s"/>`+"\n", left, y, end-left, bar-2, colours[place])
			if f.P99 > f.Value {
				fmt.Fprintf(&body, `<path d="M%.1f %.1fH%.1f" stroke="%s"/>`+"\n", end, y+bar/2-0.5, x(f.P99), colours[place])
				end, label = x(f.P99), label+" / "+digits(f.P99)
			}
			fmt.Fprintf(&body, `<text x="%.1f" y="%.0f">%s</text>`+"\n", end+4, y+bar-3, label)
			y += bar
		}
		if y > begin {
			weight := "normal"
			if strings.HasPrefix(name, "jail") {
				weight = "bold"
			}
			fmt.Fprintf(&body, `<text x="%d" y="%.1f" text-anchor="end" font-weight="%s">%s</text>`+"\n", left-6, (begin+y)/2+3, weight, html.EscapeString(name))
			y += gap
		}
	}

	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" font-family="sans-serif" font-size="11">`+"\n", left+width+20, y+50)
	fmt.Fprintf(&s, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	fmt.Fprintf(&s, `<text x="%d" y="18" font-size="14">%s, %s</text>`+"\n", left, html.EscapeString(figures[0].Test), figures[0].Unit)
	for i, place := range places {
		fmt.Fprintf(&s, `<rect x="%d" y="27" width="10" height="10" fill="%s"/><text x="%d" y="36">%s</text>`+"\n", left+i*110, colours[place], left+14+i*110, place)
	}
	for decade := from; decade <= to; decade++ {
		at := x(math.Pow(10, decade))
		fmt.Fprintf(&s, `<path d="M%.1f %dV%.0f" stroke="#ddd"/><text x="%.1f" y="%.0f" text-anchor="middle">%g</text>`+"\n", at, top-6, y, at, y+12, math.Pow(10, decade))
	}
	s.WriteString(body.String())
	fmt.Fprintf(&s, `<text x="8" y="%.0f" fill="#555">bar: median; line: up to 99 %%; the axis is logarithmic. %s</text>`+"\n</svg>\n", y+34, html.EscapeString(note))
	return s.String()
}

// hostKind is the machine without its name: "2 CPUs AMD EPYC (virtual), Linux 6.18".
func hostKind() string {
	model, virtual, cpus := "unknown CPU", "", 0
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "processor":
			cpus++
		case "model name":
			model = strings.TrimSpace(value)
		case "flags":
			if strings.Contains(value, " hypervisor ") {
				virtual = " (virtual)"
			}
		}
	}
	var u unix.Utsname
	release := ""
	if unix.Uname(&u) == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	if parts := strings.SplitN(release, ".", 3); len(parts) == 3 {
		release = parts[0] + "." + parts[1]
	}
	return fmt.Sprintf("%d CPUs %s%s, Linux %s", cpus, model, virtual, release)
}
