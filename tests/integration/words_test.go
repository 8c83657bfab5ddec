//go:build linux

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// odd holds what does something to a terminal, or to who reads it: an escape sequence, a bell, a carriage return, a C1
// control, a change of direction (CVE-2021-42574).
const odd = "a\x1b[2Kb\ac\rd\u009be\u202ef\x7fg"

// controls are the runes of a text that a terminal obeys.
func controls(text string) []rune {
	var found []rune
	for _, r := range text {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			found = append(found, r)
		}
	}
	return found
}

// P64: no name, argument or file's content of somebody else's reaches the terminal as it is.
func TestP64_NoControlCharacters(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		dir := b.mkdir(odd, 0o755)
		b.write(odd+"/plain", "x", 0o644)
		script := b.write("script", "#!/no/such/"+odd+"\n", 0o755)
		here := []string{"--ro-bind", b.dir}
		if a.level == "basic" {
			here = nil
		}
		runs := [][]string{
			{odd}, {"/no/" + odd}, {dir + "/plain"}, {dir}, {script}, // not found, no program, a folder, no interpreter
			{"sh", "-c", `kill -9 $$; ` + odd},
		}
		said := 0
		for _, argv := range runs {
			for _, flags := range [][]string{{"--verbose"}, {"--result", "-"}, {"--result", "-", "--json"}} {
				o := b.run(append(append(flags, here...), "--env", "NAME="+odd, "--env", "PATH="+dir+":/usr/bin:/bin"), argv...)
				if bad := controls(o.stdout + o.stderr); len(bad) != 0 {
					t.Errorf("%q %q: %q in %q", flags, argv, bad, o.stdout+o.stderr)
				}
				said += strings.Count(o.stderr, `\u202e`)
			}
		}
		if said == 0 {
			t.Error("nothing of it was said at all")
		}
		for _, flags := range [][]string{
			{"--" + odd},
			{"--level", odd},
			{"--workdir", odd},
			{"--ro-bind", odd},
			{"--ro-bind", "/no/" + odd},
			{"--env", odd + "=" + odd},
			{"--user", odd},
			{"--hostname", odd},
			{"--rlimit", odd},
			{"--timeout", odd},
			{"--memory", odd},
			{"--name", odd},
			{"--fd", odd},
			{"--seccomp", odd},
			{"--stdin", odd},
			{"--result", odd + "/r"},
			{"--cap-add", odd},
			{"--rootfs", odd},
			{"--network", odd},
			{"--cgroup-parent", odd},
			{"--output-limit", odd},
			{"--file", odd},
			{"--symlink", odd},
			{"--device", odd},
		} {
			for _, verb := range []string{"run", "explain"} {
				o := b.finish(b.as(append([]string{jailPath, verb, "--level=" + a.level}, append(flags, "--", "true", odd)...)...))
				if bad := controls(o.stdout + o.stderr); len(bad) != 0 {
					t.Errorf("%s %q: %q in %q", verb, flags, bad, o.stdout+o.stderr)
				}
			}
		}
		for _, flags := range [][]string{nil, {"--plan"}} {
			argv := append([]string{jailPath, "explain", "--level=" + a.level}, append(flags, here...)...)
			o := b.finish(b.as(append(argv, "--env", "NAME="+odd, "--", odd, odd)...))
			if bad := controls(o.stdout + o.stderr); len(bad) != 0 || flags != nil && !strings.Contains(o.stdout, `\u202e`) {
				t.Errorf("explain %q: %q, %+v", flags, bad, o)
			}
		}
		if bare := b.bare("sh", "-c", `"$0"`, odd); len(controls(bare.stderr)) == 0 {
			t.Errorf("vacuous: a shell does not say it as it is either: %q", bare.stderr)
		}
	})
}

// P68: a word of the command line stays that word: it is no flag, no shell's text and no part of another (CVE-2024-32462).
func TestP68_ArgumentsAreWords(t *testing.T) {
	words := []string{"--bind", "-c", "--", "--level=basic", "a;b", "a b", "$(id)", "`id`", "]:", "a:b", "*", "~", "#", "'", "\"", "\\", "-", "=", "A=b", "{x,y}", "|", ">x", "&", "!"}
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		dir := b.mkdir("bin", 0o755)
		for _, word := range words {
			b.write("bin/"+word, "#!/bin/sh\nprintf '<%s>' \"${0##*/}\" \"$@\"\n", 0o755)
		}
		flags := []string{"--env", "PATH=" + dir + ":/usr/bin:/bin"}
		for _, word := range words {
			want := "<" + word + "><" + word + "><>"
			if got := b.ok(flags, word, word, ""); got != want {
				t.Errorf("%q: got %q, want %q", word, got, want)
			}
		}
		if left, err := os.ReadDir(b.dir); err != nil || len(left) != 1 {
			t.Errorf("something was made: %v, %v", left, err)
		}
		// The bare arm is a shell, which reads such words anew.
		if bare := b.bare("sh", "-c", "PATH="+filepath.Clean(dir)+":$PATH; a;b 2>/dev/null; echo $?"); bare.stdout != "127\n" {
			t.Errorf("vacuous: a shell takes a;b for one word: %+v", bare)
		}
	})
}
