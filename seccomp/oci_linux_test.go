package seccomp

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestOCI: a profile that is written as OCI has it and read again compiles to the same filter, but for what OCI has no
// word for.
func TestOCI(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		docker, err := Default(goarch)
		if err != nil {
			t.Fatal(err)
		}
		for name, p := range map[string]Profile{"baseline": Baseline(), "default": docker} {
			p.Newest = 0
			p.Rules = slices.DeleteFunc(slices.Clone(p.Rules), func(r Rule) bool { return len(r.Names) == 0 })
			for i := range p.Rules {
				p.Rules[i].Numbers = nil
				p.Rules[i].Conds = slices.Clone(p.Rules[i].Conds)
				for j := range p.Rules[i].Conds {
					p.Rules[i].Conds[j].NotX32 = false
				}
			}
			text, err := json.Marshal(p.OCI(goarch))
			if err != nil {
				t.Fatal(err)
			}
			again, unknown, err := Read(strings.NewReader(string(text)), Target{GOARCH: goarch, Kernel: [2]int{5, 14}})
			if err != nil || len(unknown) > 0 {
				t.Fatalf("%s %s: %v, %q", name, goarch, err, unknown)
			}
			again.Newest, again.Tree = 0, p.Tree
			want, err := Compile(p, goarch)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Compile(again, goarch)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s %s: %d instructions, %d before", name, goarch, len(got), len(want))
			}
		}
	}
}
