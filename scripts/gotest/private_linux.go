package main

import (
	"os"
	"os/exec"
	"syscall"
)

// private gives the tests of root a mount namespace of their own, in which nothing propagates out: a jail-init that is
// changed for a trial and then works outside its namespaces would otherwise pivot the machine's own root away.
func private(cmd *exec.Cmd) {
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
}
