//go:build linux || darwin

package policies

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// trusted checks that a policy is the caller's own or root's: what somebody else could write would be read with the
// caller's rights.
func trusted(info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return errors.New("its owner is not known")
	case int(st.Uid) != os.Geteuid() && st.Uid != 0:
		return fmt.Errorf("it belongs to uid %d, who is neither you nor root; make a copy that is yours", st.Uid)
	case info.Mode().Perm()&0o002 != 0:
		return errors.New("everybody may write to it; chmod o-w")
	case info.Mode().Perm()&0o020 != 0 && int(st.Gid) != os.Getegid():
		return fmt.Errorf("the group %d may write to it; chmod g-w", st.Gid)
	}
	return nil
}
