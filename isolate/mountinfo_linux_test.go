//go:build amd64 || arm64

package isolate

import (
	"slices"
	"strings"
	"testing"
)

// FuzzMountPoints: whatever a mount point is called, it is read back.
func FuzzMountPoints(f *testing.F) {
	for _, name := range []string{"a", "a b", `\040`, "x - y", "a\rb", "a\u00a0b", "a\x85", "\v", "a\n"} {
		f.Add(name)
	}
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`) // as the kernel does
	f.Fuzz(func(t *testing.T, name string) {
		line := "30 20 0:25 / /" + escape.Replace(name) + " rw,relatime shared:4 - tmpfs tmpfs rw\n"
		if got := pointsOf("29 20 0:24 / / rw - ext4 /dev/sda rw\n" + line); !slices.Equal(got, []string{"/", "/" + name}) {
			t.Errorf("%q: %q", line, got)
		}
		_ = pointsOf(name)
	})
}
