//go:build linux && (amd64 || arm64)

package jailinit

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// crossCompilers by architecture, as generate.sh takes them.
var crossCompilers = map[string]string{"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}

// TestGenerate makes the assembly again, where the compiler is the one that made what is committed.
func TestGenerate(t *testing.T) {
	for arch, compiler := range crossCompilers {
		t.Run(arch, func(t *testing.T) {
			needs(t, compiler)
			committed, err := os.ReadFile("jailinit_" + arch + ".S")
			if err != nil {
				t.Fatal(err)
			}
			head, _, _ := bytes.Cut(committed, []byte("\n"))
			version, err := exec.Command(compiler, "-dumpfullversion").Output()
			if err != nil {
				t.Fatal(err)
			}
			if v := strings.TrimSpace(string(version)); !bytes.Contains(head, []byte(" "+v+" ")) {
				t.Skipf("host lacks: the compiler of %q (%s is %s)", head, compiler, v)
			}
			// The script makes both; where the other compiler is not there, it has failed after this one at the latest.
			dir := t.TempDir()
			out, _ := exec.Command("./generate.sh", dir).CombinedOutput()
			again, err := os.ReadFile(filepath.Join(dir, "jailinit_"+arch+".S"))
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if diff := cmp.Diff(string(committed), string(again)); diff != "" {
				t.Errorf("go generate makes it another (-committed +again):\n%.2000s", diff)
			}
		})
	}
}

// TestSection assembles what is committed: nothing in jail-init's section refers to anything outside it, and no symbol
// of ours is to be seen by the program that we are linked into.
func TestSection(t *testing.T) {
	for arch, compiler := range crossCompilers {
		t.Run(arch, func(t *testing.T) {
			if arch == runtime.GOARCH {
				compiler = "gcc"
			}
			f := assemble(t, needs(t, compiler), "jailinit_"+arch+".S")
			section := f.Section("jail_init")
			if section == nil || section.Size < 2000 || section.Size > 16<<10 {
				t.Fatalf("the section jail_init: %+v", section)
			}
			if section.Flags&elf.SHF_WRITE != 0 {
				t.Error("the section can be written to")
			}
			for _, s := range f.Sections {
				switch {
				case strings.HasPrefix(s.Name, ".rela") && s.Info < uint32(len(f.Sections)) && f.Sections[s.Info] == section:
					t.Errorf("%s: %d bytes of relocations", s.Name, s.Size)
				case s.Size > 0 && (s.Name == ".data" || s.Name == ".bss" || strings.HasPrefix(s.Name, ".rodata")):
					t.Errorf("%s has %d bytes", s.Name, s.Size)
				}
			}
			symbols, err := f.Symbols()
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range symbols {
				bind, visible := elf.ST_BIND(s.Info), elf.ST_VISIBILITY(s.Other)
				if s.Section == elf.SHN_UNDEF && s.Name != "" {
					t.Errorf("%s is not defined here", s.Name)
				}
				if bind != elf.STB_LOCAL && visible != elf.STV_HIDDEN {
					t.Errorf("%s can be seen from outside", s.Name)
				}
				if bind != elf.STB_LOCAL && !strings.HasPrefix(s.Name, "jail_") {
					t.Errorf("%s may meet a symbol of the program", s.Name)
				}
			}
			stack := false
			for _, s := range f.Sections {
				stack = stack || s.Name == ".note.GNU-stack" && s.Flags&elf.SHF_EXECINSTR == 0
			}
			if !stack {
				t.Error("the stack of the program would become executable")
			}
		})
	}
}

// TestSectionCanFail: the check above sees a reference that leaves the section.
func TestSectionCanFail(t *testing.T) {
	gcc := needs(t, "gcc")
	b, err := os.ReadFile("jailinit_" + runtime.GOARCH + ".S")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "broken.S")
	b = append(b, "\n\t.section jail_init,\"ax\",%progbits\n\t.quad memset\n"...)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if f := assemble(t, gcc, path); f.Section(".relajail_init") == nil {
		t.Error("no relocation is seen")
	}
}

func assemble(t *testing.T, compiler, source string) *elf.File {
	t.Helper()
	object := filepath.Join(t.TempDir(), "jailinit.o")
	if out, err := exec.Command(compiler, "-c", "-o", object, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := elf.Open(object)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestProgram: what is executed is an ELF file with one segment of code, which can't be written to, and the stack's.
func TestProgram(t *testing.T) {
	f, err := elf.NewFile(bytes.NewReader(program()))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range f.Progs {
		got = append(got, fmt.Sprint(p.Type, " ", p.Flags))
	}
	if want := "[PT_LOAD PF_X+PF_R PT_GNU_STACK PF_W+PF_R]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %v", got, want)
	}
	load := f.Progs[0]
	if f.Entry < load.Vaddr+uint64(120) || f.Entry >= load.Vaddr+load.Filesz || load.Filesz != uint64(len(program())) || load.Memsz != load.Filesz {
		t.Errorf("entry %#x, %+v", f.Entry, load.ProgHeader)
	}
	if load.Vaddr+load.Memsz > planAt {
		t.Error("the Plan's place is taken")
	}
}
