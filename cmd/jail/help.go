package main

import (
	_ "embed"
	"fmt"
)

// help prints the help of a command, or of all.
func help(args []string) int {
	topic := ""
	if len(args) > 0 {
		topic = args[0]
	}
	if len(args) > 1 {
		return fail(&usageError{problem: "jail help takes one topic"})
	}
	text := helpText(topic)
	if text == "" {
		return fail(&usageError{
			problem: "no help on " + quote(topic),
			hint:    didYouMean(topic, append([]string{"limits", "rootfs", "syscalls", "result"}, commands...), "jail help ", "there is help on run, limits, rootfs, syscalls, explain, learn, policy, why, levels, gc, version, help and result"),
		})
	}
	fmt.Print(text)
	return 0
}

// The schema of the Result is made from its Go type.
//
//go:generate go test -run ^TestResultSchema$ -update .
//go:embed result.schema.json
var resultSchema string

// helpText is the help on a topic; "" is none.
func helpText(topic string) string {
	switch topic {
	case "":
		return overviewHelp
	case "run":
		return runHelp
	case "explain":
		return explainHelp
	case "policy":
		return policyHelp
	case "learn":
		return learnHelp
	case "why":
		return whyHelp
	case "levels":
		return levelsHelp
	case "gc":
		return gcHelp
	case "limits":
		return limitsHelp
	case "rootfs":
		return rootfsHelp
	case "syscalls":
		return syscallsHelp
	case "version":
		return versionHelp
	case "help":
		return helpHelp
	case "result":
		return resultSchema
	}
	return ""
}

const (
	overviewHelp = `jail runs a command with as much isolation as you ask for.

  jail run [flags] [--] COMMAND [ARGUMENT …]   run it
  jail explain [flags] [--] COMMAND …          what that does, what stays open
  jail learn -o FILE [flags] [--] COMMAND …    run it, write what it used down
  jail policy list|show|check|diff|schema      policy files
  jail why PATH|HOST|SYSCALL [flags]           is it allowed, and by which line
  jail levels                                  what this host can give
  jail gc                                      remove what killed runs left
  jail version, jail help [COMMAND]

Levels, each with all of the one before:
  basic        own session, listed fds, clean environment, limits
  user         another identity, a list of files, a filter for system calls
  namespaced   own files, processes, network, hostname (the default)
  limited      own limits on memory, processes, CPU, I/O; all of it counted
  contained    mapped users, an allow-list of system calls, masked /proc, /sys

  $ jail run -- python3 untrusted.py
  $ jail run --bind build --timeout 10m -- make -C build test
  $ jail run --policy agent -- git commit -a
  $ jail run --level=user --network host -- curl https://example.org
  $ jail explain --bind build -- make
`
	runHelp = `jail run [flags] [--] COMMAND [ARGUMENT …]

  --policy NAME|FILE               what a policy says: jail help policy
  --level LEVEL                    how much isolation (namespaced)
  --user UID[:GID]|caller          who COMMAND is; numbers only
  --workdir DIR                    its working folder (--chdir)
  --env NAME[=VALUE]               one variable; NAME alone passes yours
  --env-all, --clearenv            all of yours; none but those of --env
  --hostname NAME                  its hostname (jail)
  --bind SRC[:DST]                 show a file or folder, writable (--rw)
  --ro-bind SRC[:DST]              the same, readable only (--ro)
  --bind-try, --ro-bind-try        the same where SRC exists
  --tmpfs PATH[:SIZE]              an empty folder in memory
  --dir PATH, --deny PATH          make a folder; take a path away
  --symlink TARGET:LINK            make a link
  --rootfs DIR, --overlay SRC …    other files than yours: jail help rootfs
  --file FD:PATH                   make a file of what FD gives
  --rlimit NAME=SOFT[:HARD]        nofile=64:128, as=1G, core=unlimited, …
  --timeout TIME                   end it (10s, 5m), and with
  --kill-after TIME                SIGTERM first, the kill after TIME
  --memory SIZE, --output-limit …  and other limits: jail help limits
  --network none|host              none but its own loopback (--net)
  --proc own|outer                 outer: that of a sandbox around, if need be
  --cap-add, --cap-drop NAME       capabilities, or ALL
  --seccomp …, --syscalls RULE     which system calls: jail help syscalls
  --fd N[:M]                       pass your fd N, as its fd M
  --stdin, --stdout, --stderr FILE read from it; empty it and write there
  --result FILE|-, --json          write what happened: jail help result
  --allow-downgrade                a lower level will do (--best-effort)
  --monitor                        report the calls that it refuses (--denied)
  --notify open:PATH|connect:ADDR  do that for it: see docs/policies.md
  --ipc SERVICE[:ARGS]             what the broker does for it: docs/ipc.md
  --verbose                        say on stderr how it ended

SRC and --deny may be relative; SRC:DST meet at ":/". SIZE takes K, M, G.
By default PATH, HOME, USER, LOGNAME, LANG, LC_*, TERM and TZ are passed, with
the host's network the variables for proxies and certificates too.
Exit code: COMMAND's; 128+signal; 124 time-out; 125 jail failed; 126, 127
COMMAND could not be run, not found.
  $ jail run --bind . --rlimit as=1G --timeout 30s -- sh -c 'cc a.c && ./a.out'
`
	explainHelp = `jail explain [--plan|--origin] [--json] [flags of run] [--] COMMAND …

Prints what jail run would do with the same arguments: the permissions that
COMMAND gets, the borders that hold it, what is monitored, and the escape
routes that are known to stay open. Each step is tried first, so this is the
plan that will run on this host; COMMAND itself is not started.

  --plan   the steps in their order, and who does each: the launcher, jail-init
           (the jail's first process) or the payload's process before its exec
  --origin each setting, and the line of a policy or the flag that it comes from
  --json   all of it for machines

  $ jail explain -- python3 untrusted.py
  $ jail explain --plan --level=user -- make
`
	policyHelp = `A policy is a file that says what flags of jail run say. It is used when it is
named, never found: --policy NAME for a built-in one, --policy ./x.yaml.

  version: 1
  extends: agent          # or a list; files lie below this one's folder
  permissions:            # files, env, network, syscalls, seccomp, fd, stdin, …
    files:
      - write: ./out      # read, write, exec: all rights for a path add up
      - exec: ./out       # deny; overlay, device, tmpfs, dir, symlink, file
      - deny: ./**/*.key  # deny is never taken back
        if-absent: report # one that is made is told in the result (appeared)
      - read: ~/.cache/x  # ~ and ${NAME} at the begin; else below its folder
        optional: true
  borders: {timeout: 10m} # level, user, rlimit, memory, pids-limit, name, …
  monitor: {json: true}   # result, json, denied, notify, …

A key is the name of its flag. A flag counts more than a policy, a policy more
than what it extends; two that it extends may not contradict each other. The
most specific path wins, then deny, then a path named before a pattern.
The file has to be yours or root's. COMMAND finds what holds for it in the file
that JAIL_POLICY names.

  jail policy list            the built-in ones
  jail policy show POLICY     it, with all that it extends; with --seccomp what
                              its filters do, and what they cost
  jail policy check POLICY …  is it right, and can this host give it
  jail policy diff A B        what they say differently (exit code 1)
  jail policy convert POLICY  as an OCI config.json, and one as a policy; what
                              is lost is listed (exit code 1)
  jail policy schema          the JSON Schema, for editors

  $ jail run --policy judge --memory 64M -- ./submission
  $ jail explain --origin --policy ./ci.yaml -- make
`
	learnHelp = `jail learn -o FILE [--merge] [flags of run] [--] COMMAND [ARGUMENT …]

Runs COMMAND as jail run does with the same flags (level namespaced and up),
only slower, and writes FILE, a policy of what it has used: files read, written
and executed, the network, system calls, capabilities of those given, and
memory. What flags don't show it can't use: give it what it needs, as --bind.
--merge adds a run to what FILE says already. Read FILE before you use it; what
it can miss is in docs/policies.md.

  $ jail learn -o cc.yaml --bind . -- gcc -o hello hello.c
  $ jail run --policy ./cc.yaml -- gcc -o hello hello.c
`
	whyHelp = `jail why PATH|HOST|SYSCALL [--policy NAME|FILE] [flags of run]

Says whether COMMAND of jail run could open a file, reach a host or make a
system call, by which line of a policy, flag or level, and what would allow it.
A word with a slash is a path, one with a dot or a port a host. What owners and
modes of files say comes on top. The exit code is 1 where it is denied.

  $ jail why ~/.ssh/id_ed25519 --policy agent
  $ jail why example.org:443 --policy agent
  $ jail why io_uring_setup --level=user
`
	levelsHelp = `jail levels [--json]

Tries each level on this host, as you are, and prints that it works, or the
first step that did not, who refused it, and the one thing that would change
it, as far as that is known. The "cause" of --json is kernel, sysctl, lsm,
seccomp, capabilities, user-namespace, mounts, cgroup, or empty.

  $ jail levels
`
	rootfsHelp = `Roots, overlays and devices of jail run, from level namespaced up

  --rootfs DIR[:rw]        DIR is /: of your files only those that other flags
                           show are there. Read-only, or writable with :rw
  --rootfs-overlay         writes are kept in memory; DIR stays as it is
  --overlay SRC[:DST]      the same for one folder
  --device PATH[:DST]      a device of yours, at the same path or at DST; it
                           has to let COMMAND in (as root it does)

In a root the working folder is / unless --workdir names one, and COMMAND is
uid 0 there (--user gives another number); outside it is a uid that owns
nothing, or you. Files of DIR's owner are COMMAND's, those of others nobody's.
PATH is the usual one, HOME is /root, or / for another uid than 0.
/proc, /dev, /sys, /tmp, /var/tmp and /run are the jail's own. What DIR lacks
to mount them on is made in memory, never in DIR. No link in DIR leads out.

  $ jail run --rootfs ./debian -- cat /etc/os-release
  $ jail run --rootfs ./debian --rootfs-overlay -- apt-get --simulate upgrade
  $ jail run --overlay . -- make
`
	limitsHelp = `Limits of jail run. From level limited up a jail has a cgroup of its own, and
these flags bound all its processes together:

  --memory SIZE                    memory (-m); beyond it processes are killed
  --swap SIZE                      swap beside it; none without this flag
  --pids-limit N                   processes and threads (1024)
  --cpus N                         CPUs at a time: 2, 0.5
  --cpuset LIST                    which CPUs: 0-3,5 (--cpuset-cpus)
  --cpu-time TIME                  CPU time, then the jail ends
  --io DEVICE:KEY=RATE[,…]         of a disk: rbps=, wbps=10M, riops=, wiops=200
  --cgroup-parent CGROUP           where it is made, as in /proc/self/cgroup
  --name NAME                      its name; one jail of that name at a time

At each level:

  --output-limit SIZE[:ACTION]     of stdout and stderr together, which become
                                   pipes; then kill (137), truncate or block
  --rlimit NAME=SOFT[:HARD]        of each process alone (man getrlimit)
  --timeout TIME, --kill-after     wall time

  $ jail run --level=limited --memory 256M --cpu-time 2s -- ./a.out
`
	syscallsHelp = `System calls of jail run, from level user up

  --seccomp baseline        the level's filter alone
  --seccomp default         Docker's profile besides, made stricter
  --seccomp FILE            a profile in Docker's form or OCI's besides
  --seccomp unconfined      neither
  --syscalls RULE           a rule for single calls, besides all of these
  --seccomp-log             what the filters refuse is in the kernel's log

RULE is ACTION=CALL,… or deny:ERRNO=CALL,… with :CONDITION,… behind it, or none.
In a policy it is

  permissions:
    syscalls:
      - deny: ["@debug", mount]    # EPERM
      - allow: ptrace              # though it is in @debug
      - deny: "@clock"
        errno: ENOSYS              # with 0 nothing is done, and it succeeds
      - kill-process: socket
        when: arg0 == 16           # or a list; also != < <= > >= and & MASK

Actions are allow, deny, kill-process, kill-thread, trap (SIGSYS) and log. For
each call the most specific rule counts: one with when, then the call's name,
then its group, then @all; of several the strictest. What no rule names is
allowed: for a list of all that is allowed, deny "@all" and allow that. No rule
gives back what another filter refuses. The groups (docs/syscalls.md has them):

  @admin @aio @basic-io @bpf @chown @clock @cpu-emulation @debug @file-system
  @file-watch @info @io-event @io-uring @ipc @keyring @memory @module @mount
  @namespace @network-io @numa @obsolete @process @raw-io @reboot @resources
  @sandbox @setuid @signal @swap @thread @time

  $ jail run --syscalls deny=@network-io,ptrace -- make
  $ jail policy show --seccomp ./mine.yaml
`
	gcHelp = `jail gc

Removes what is left where jail run was killed: cgroups, and at level user the
private folder in TMPDIR. It prints their names. What jail did not make, and
what belongs to a jail that lives, stays. A later run of the same --name removes
the cgroup as well.
`
	versionHelp = `jail version

Prints the version, the Go version it was built with, and what it needs.
`
	helpHelp = `jail help [COMMAND|limits|rootfs|syscalls|result]

Prints the help of a command; "result" prints the JSON Schema of the result that
jail run --json writes.
`
)
