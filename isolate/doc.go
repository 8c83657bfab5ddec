// Package isolate runs a command that is not fully trusted, with as much isolation as is asked for, and tells what
// happened. Its Cmd is shaped like os/exec.Cmd:
//
//	cmd := isolate.Command(ctx, isolate.Namespaced, "python3", "untrusted.py")
//	out, err := cmd.Output()
//	fmt.Println(cmd.Result())
//
// # Levels
//
// Each level includes the one before.
//
//   - Basic: a session of its own, only the fds that were passed, a clean environment, rlimits, no_new_privs, a time
//     limit, death with this process. It needs nothing.
//   - User: for root another uid, which no other jail and no person has, without groups and capabilities; a file view
//     by Landlock; a filter for system calls that only attackers miss. It needs Landlock (Linux 5.13, enabled).
//   - Namespaced: mount, pid, ipc, uts, net and cgroup namespaces (and user, for an ordinary user); the file view by
//     mounts in a root of its own; private /proc, /dev, /sys, /tmp and home; a PID 1 that reaps. It needs root, or user
//     namespaces for ordinary users.
//   - Limited: a cgroup of its own, which limits memory, tasks, CPU and I/O of all processes together (Linux.Resources,
//     CPUTime) and counts them. It needs root or a delegated cgroup.
//   - Contained: a user namespace with the payload's ids alone, for root as well; an allow-list filter; what of /proc and
//     /sys tells of the machine masked; no capability, no new namespace. It needs what Limited needs.
//
// A level that the host can't give is an error that is ErrUnsupported and names the step that failed, its errno, who
// refused as far as that can be known, and the highest level that works: nothing is weakened silently. See UnsupportedError,
// Spec.AllowDowngrade and Spec.OuterProc.
//
// # One line
//
// A Spec says what is wanted. Compile turns it, with the facts about this Host, into a Plan: the list of steps. The
// launcher starts jail-init (package internal/jailinit), which does the steps, starts the payload and stays until the
// jail is empty. A Process is a jail that runs, a Result what happened.
//
// # In a host program
//
// The package installs no signal handler, forks nothing through libc, takes no lock that another launch waits for, and
// leaves the program's thread and process state alone: launches may run from many goroutines at once. It needs cgo. A
// program that reaps children behind its back (wait4(-1), or an ignored SIGCHLD) does no harm. It keeps two fds for
// ever: jail-init's sealed image and a pidfd of the program itself. Jails end when the program ends, however it ends.
package isolate
