package main

import "golang.org/x/sys/unix"

// terminals are the modes of the terminals that are our standard streams, by fd. The payload is in another session, but
// holds them: it may turn off the echo, say, and be killed before it turns it on again.
type terminals map[int]unix.Termios

func lookAtTerminals() terminals {
	t := terminals{}
	for fd := range 3 {
		if modes, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			t[fd] = *modes
		}
	}
	return t
}

// restore gives them back as they were. In the background it does not: there the modes are those of the program in the
// foreground, and who sets them is stopped by SIGTTOU.
func (t terminals) restore() {
	for fd, was := range t {
		if is, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil || *is == was {
			continue
		}
		if front, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil && front != unix.Getpgrp() {
			continue
		}
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, &was) // a terminal that has gone away needs none
	}
}
