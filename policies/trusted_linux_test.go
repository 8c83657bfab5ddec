package policies

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestTrusted: no policy reads what its author could not, so it is the caller's or root's; and none that is not a plain
// file below the folder of the one that was named.
func TestTrusted(t *testing.T) {
	dir := folder(t, map[string]string{
		"in/link.yaml":  "version: 1\nextends: ./out.yaml\n",
		"in/plain.yaml": "version: 1\nextends: ./same.yaml\n",
		"in/up.yaml":    "version: 1\nextends: sub/../../out.yaml\n",
		"out.yaml":      "version: 1\n", "in/target.yaml": "version: 1\n", "open.yaml": "version: 1\n", "group.yaml": "version: 1\n",
		"large.yaml": "version: 1\n#" + strings.Repeat("x\n#", 1<<19), "others.yaml": "version: 1\n", "in/fifo-user.yaml": "version: 1\nextends: ./fifo.yaml\n",
	})
	err := errors.Join(
		os.Symlink("../out.yaml", "in/out.yaml"), os.Symlink("target.yaml", "in/same.yaml"),
		syscall.Mkfifo("fifo.yaml", 0o600), syscall.Mkfifo("in/fifo.yaml", 0o600), os.Mkdir("folder.yaml", 0o755),
		os.Chmod("open.yaml", 0o646), os.Chmod("group.yaml", 0o664))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"./in/plain.yaml":     "",
		"./group.yaml":        "", // the caller's own group
		"./in/link.yaml":      `in/link.yaml:2:10: policy "in/out.yaml" can't be read: path escapes from parent`,
		"./in/up.yaml":        `in/up.yaml:2:10: extends "sub/../../out.yaml" leaves the policy's folder: ".." is refused`,
		"./fifo.yaml":         `policy "fifo.yaml" can't be read: it is not a regular file`,
		"./in/fifo-user.yaml": `in/fifo-user.yaml:2:10: policy "in/fifo.yaml" can't be read: it is not a regular file`,
		"./folder.yaml":       `policy "folder.yaml" can't be read: it is not a regular file`,
		"./large.yaml":        `policy "large.yaml" can't be read: it is larger than 1 MiB`,
		"./open.yaml":         `policy "open.yaml" can't be read: everybody may write to it; chmod o-w`,
		"/dev/null/x.yaml":    `policy "/dev/null/x.yaml" can't be read: not a directory`,
		"./no/such.yaml":      `policy "./no/such.yaml" can't be read: no such file or directory`,
		"agnet":               `there is no built-in policy "agnet"; did you mean "agent"?`,
	} {
		got := ""
		if _, err := Load(name); err != nil {
			got = strings.ReplaceAll(err.Error(), dir, "")
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("host lacks: root (to give a file away)")
	}
	if err := errors.Join(os.Chown("others.yaml", 4711, 0), os.Chown("group.yaml", 0, 4711)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"others": "belongs to uid 4711", "group": "the group 4711 may write"} {
		if _, err := Load("./" + name + ".yaml"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
