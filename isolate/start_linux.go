//go:build cgo && (amd64 || arm64)

package isolate

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/cgroup"
	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// launcherPIDFD is this process's own pidfd, which jail-init watches: made once, kept for ever.
var launcherPIDFD = sync.OnceValues(func() (int, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return -1, &StepError{Index: -1, Side: SideLauncher, Op: "pidfd_open", Errno: errnoOf(err)}
	}
	return fd, nil
})

// attempts bounds how often a launch is compiled anew with what a failed step has taught.
const attempts = 10

// start compiles the Spec and starts it. Below the level asked for it goes only where the Spec allows it.
func start(c *Cmd, files []*os.File) (*Process, error) {
	spec := *c.spec
	process := *spec.Process
	spec.Process = &process
	if c.Env != nil {
		process.Env = c.Env
	}
	if c.Dir != "" {
		process.Cwd = c.Dir
	}
	p, err := startSpec(&spec, c, files)
	var unsupported *UnsupportedError
	if errors.As(err, &unsupported) {
		if !spec.AllowDowngrade {
			unsupported.Highest = highest(&spec)
			return nil, unsupported
		}
		p, err = downgrade(&spec, c, files, err)
	}
	if err != nil {
		return nil, err
	}
	p.result.Level = spec.Level
	for _, g := range spec.promised() {
		if !slices.Contains(p.plan.Given, g) {
			p.result.LostGuarantees = append(p.result.LostGuarantees, g)
		}
	}
	return p, nil
}

// downgrade starts the highest level below the Spec's that works. A rule that a lower level can't enforce is not
// dropped: then the first error stands.
func downgrade(spec *Spec, c *Cmd, files []*os.File, first error) (*Process, error) {
	for level := spec.Level - 1; level >= Basic; level-- {
		p, err := startSpec(spec.at(level), c, files)
		if err == nil || !errors.Is(err, ErrUnsupported) && !errors.As(err, new(*SpecError)) {
			return p, err
		}
	}
	return nil, first
}

// startSpec is one level: probe, compile, launch, and again with what was learned.
func startSpec(spec *Spec, c *Cmd, files []*os.File) (*Process, error) {
	begin := time.Now()
	host := c.host
	if host == nil {
		var err error
		if host, err = probe(spec); err != nil {
			return nil, err
		}
	}
	l := &launch{spec: spec, host: host, place: host.Cgroup, files: files, failStep: c.failStep, failErrno: c.failErrno, try: c.try, listener: -1, meeting: -1, cancel: c.ctx.Done()}
	defer l.close()
	if err := l.claim(); err != nil && !host.dropOwnUID() {
		if !uidMapped(firstUID) {
			return nil, host.noOtherUID(spec.Level)
		}
		return nil, &UnsupportedError{
			Level: spec.Level, Missing: "a uid of its own for the payload of root: " + err.Error(),
			Cause: Cause{LayerMounts, "", "root has to be able to write to /run, or to /dev/shm: mount a tmpfs there"},
		}
	}
	for n := 1; ; n++ {
		plan, err := Compile(spec, host)
		if err != nil {
			return nil, host.because(err)
		}
		l.plan = plan
		c.plan, c.given = l.plan, spec.Level
		compiled := time.Since(begin)
		p, err := l.run()
		if err == nil {
			p.result.CompileMS = milliseconds(compiled)
			return p, nil
		}
		l.undo()
		var step *StepError
		if n == attempts || !errors.As(err, &step) || !host.learn(l.plan, step) {
			return nil, host.because(l.explain(err))
		}
		begin = time.Now()
	}
}

// launch is one start under way.
type launch struct {
	spec  *Spec
	host  *Host
	plan  *Plan
	files []*os.File
	try   bool

	claims      []*os.File // of the uid and of the private TMPDIR: jail-init holds copies until the jail is empty
	scratch     string     // made on the host
	scratchLock *os.File   // nil once the Process has it
	place       *cgroup.Place
	cgroup      *cgroup.Cgroup // nil once the Process has it
	attached    chan error     // tells of an attach under way
	usageBase   cgroup.Usage   // what the cgroup had counted at the barrier, and what jail-init said there
	recordBase  jailinit.Record
	listener    int // of the monitor, until that has it; -1 is none
	meeting     int // the same
	cancel      <-chan struct{}
	failStep    uint32
	failErrno   uint32
}

// run launches the Plan and follows it until the payload runs.
func (l *launch) run() (*Process, error) {
	pass, npass, err := l.payloadFDs()
	if err != nil {
		return nil, err
	}
	image, err := jailinit.Image(l.plan.noMemfd)
	if err != nil {
		return nil, mintError("make jail-init", err)
	}
	self, err := launcherPIDFD()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := l.launcherSteps(0, 0); err != nil {
		return nil, err
	}
	var limit *os.File
	if l.cgroup != nil {
		if limit, err = l.cgroup.Open("pids", "pids.max"); err != nil {
			return nil, &StepError{Index: -1, Side: SideLauncher, Op: "cgroup open", Object: "pids.max", Errno: errnoOf(err)}
		}
		defer limit.Close()
	}
	plan, err := jailinit.WritePlan(l.plan.encode(npass, l.try, l.failStep, l.failErrno), l.plan.noMemfd)
	if err != nil {
		return nil, mintError("write the Plan", err)
	}
	defer unix.Close(plan)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	kept := []int{plan, pair[1], self}
	for _, f := range l.claims {
		kept = append(kept, int(f.Fd()))
	}
	slot := func(n, fd int) { // those between stay unused
		for len(kept) < n {
			kept = append(kept, self)
		}
		kept = append(kept, fd)
	}
	for i, fd := range l.plan.files {
		if l.try {
			fd = self // its content is for the run
		}
		slot(firstFileSlot+i, fd)
	}
	start := jailinit.Launch{
		Flags: l.plan.flags, Image: image, Ambient: l.plan.ambient, NoClone3: l.plan.noClone3, Pass: pass,
	}
	if l.cgroup != nil {
		start.Cgroup = l.cgroup.FD("pids") // for CLONE_INTO_CGROUP
		slot(cgroupSlot, int(limit.Fd()))
	}
	start.Kept = kept
	pid, pidfd, stage, err := start.Start()
	unix.Close(pair[1])
	runtime.KeepAlive(l.files)
	if err != nil {
		unix.Close(pair[0])
		return nil, l.launchError(stage, err)
	}
	p := newProcess(l, pid, pidfd, pair[0])
	if l.cgroup != nil && l.place.Version == 2 && start.Flags&unix.CLONE_INTO_CGROUP == 0 {
		l.attach(pid) // goes on while jail-init mounts
	}
	p.result.LaunchMS = milliseconds(time.Since(begin))
	launched := time.Now()
	if err := l.follow(p); err != nil {
		p.abandon()
		return nil, err
	}
	p.result.ExecMS = milliseconds(time.Since(launched))
	if l.try {
		p.abandon()
		return p, nil
	}
	p.begin(l)
	return p, nil
}

// mintError is a file of jail-init's that could not be made: a step that has another way, if it has an errno.
func mintError(op string, err error) error {
	if errno := errnoOf(err); errno != 0 {
		return &StepError{Index: -1, Side: SideLauncher, Op: op, Errno: errno}
	}
	return fmt.Errorf("%s: %w", op, err)
}

// payloadFDs pairs the caller's fds with the payload's.
func (l *launch) payloadFDs() (pass []jailinit.FD, npass int, err error) {
	for i, f := range l.files {
		if f == nil {
			continue
		}
		fd := int(f.Fd())
		if fd < 0 {
			return nil, 0, &StepError{Index: -1, Side: SideLauncher, Op: "pass fd", Object: f.Name(), Errno: unix.EBADF}
		}
		pass = append(pass, jailinit.FD{Src: fd, Dst: i})
	}
	if len(pass) > jailinit.MaxFDs {
		return nil, 0, &SpecError{Field: "fd", Value: "", Problem: "is given more than 256 times"}
	}
	if len(l.plan.files) > maxFiles {
		return nil, 0, &SpecError{Field: "file", Value: "", Problem: "is given more than 5 times"}
	}
	return pass, len(l.files), nil
}

// follow reads jail-init's records until the payload runs, and does the launcher's steps at the barriers.
func (l *launch) follow(p *Process) error {
	for {
		r, ok, err := jailinit.Receive(func(b []byte) (int, error) { return l.read(p, b) })
		switch {
		case err != nil:
			return socketError("read", err)
		case !ok:
			return errSilent
		}
		switch r.Kind {
		case jailinit.RecordBarrier:
			l.recordBase = r
			if err := l.launcherSteps(int(r.Step), p.Pid); err != nil {
				return err
			}
			// One that does not hear us any more has said why, or ended.
			if err := p.order(jailinit.Order{Kind: jailinit.OrderGo}); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return socketError("send", err)
			}
		case jailinit.RecordFailed:
			return l.failed(r)
		case jailinit.RecordListener:
			if p.monitor != nil || l.listener < 0 || l.plan.Steps[r.Step].wire.c != 0 && l.meeting < 0 {
				return l.plan.stepError(int(r.Step), unix.EMFILE) // the kernel drops fds that there is no room for
			}
			listener, meeting := l.listener, l.meeting
			l.listener, l.meeting = -1, -1
			if p.monitor, err = startMonitor(l, listener, meeting); err != nil {
				return err
			}
		case jailinit.RecordTried:
			return nil
		case jailinit.RecordStarted:
			p.payload, p.first = int(r.Status), r
			return nil
		}
	}
}

// socketError is a failure of the socket to jail-init, if it has an errno.
func socketError(op string, err error) error {
	if errno := errnoOf(err); errno != 0 {
		return &StepError{Index: -1, Side: SideLauncher, Op: op, Object: "records of jail-init", Errno: errno}
	}
	return err
}

// read waits for a record, or for the context's end: a step may wait for ever (a --file fd that nobody writes to).
func (l *launch) read(p *Process, b []byte) (int, error) {
	if l.cancel == nil {
		return l.receive(p.control, b)
	}
	for {
		f := []unix.PollFd{{Fd: int32(p.control), Events: unix.POLLIN}}
		n, err := unix.Poll(f, 20)
		if n > 0 {
			return l.receive(p.control, b)
		}
		if err != nil && err != unix.EINTR {
			return 0, os.NewSyscallError("poll", err)
		}
		select {
		case <-l.cancel:
			return 0, errCancelled
		default:
		}
	}
}

// receive reads a record, and the listener that may come with it.
func (l *launch) receive(control int, b []byte) (int, error) {
	space := make([]byte, unix.CmsgSpace(2*4))
	n, got, _, _, err := unix.Recvmsg(control, b, space, unix.MSG_CMSG_CLOEXEC)
	if err != nil || got == 0 {
		return n, err
	}
	messages, err := unix.ParseSocketControlMessage(space[:got])
	if err != nil {
		return n, err
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) > 0 {
			l.listener = fds[0]
			if len(fds) > 1 {
				l.meeting = fds[1]
			}
		}
	}
	return n, nil
}

var errCancelled = errors.New("cancelled while the jail was being set up")

// launcherSteps does the run of launcher steps from index on. pid is jail-init's, if there is one yet.
func (l *launch) launcherSteps(index, pid int) error {
	for i := index; i < len(l.plan.Steps) && l.plan.Steps[i].Side == SideLauncher; i++ {
		s := l.plan.Steps[i]
		if l.failStep == uint32(i)+1 {
			return l.plan.stepError(i, unix.Errno(l.failErrno))
		}
		var err error
		switch s.Op {
		case "mkdir":
			err = l.makeScratch(s.Path)
		case "map id":
			err = os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, s.Path), []byte(s.Data), 0)
		default:
			err = l.cgroupStep(&s, pid)
		}
		switch {
		case err == nil:
		case errnoOf(err) == 0: // no call that failed, but something to be told
			return err
		default:
			return l.plan.stepError(i, err)
		}
	}
	return nil
}

// failed makes the error of a step that did not work.
func (l *launch) failed(r jailinit.Record) error {
	errno := unix.Errno(r.Err)
	if int(r.Step) == len(l.plan.Steps)-1 && l.failStep == 0 {
		s := l.plan.Steps[r.Step]
		e := &ExecError{Name: l.spec.Process.Args[0], Errno: errno}
		if strings.Contains(e.Name, "/") {
			e.Path = e.Name
		} else if errno != unix.ENOENT && int(r.Status) < len(s.List) {
			e.Path = s.List[r.Status]
		}
		return e
	}
	return l.plan.stepError(int(r.Step), errno)
}

func (l *launch) launchError(stage jailinit.Stage, err error) error {
	e := &StepError{Index: -1, Side: SideLauncher, Errno: errnoOf(err)}
	switch stage {
	case jailinit.StageFDs:
		e.Op, e.Object = "duplicate fds", "for the jail"
	case jailinit.StageExec:
		e.Op, e.Object = "execveat", "jail-init"
	default:
		e.Op, e.Object = "clone3", strings.Join(l.plan.CloneFlags, "|")
		if l.plan.noClone3 {
			e.Op = "clone"
		}
	}
	return e
}

// explain turns the failure of a step that stands for something the host can't do into an UnsupportedError.
func (l *launch) explain(err error) error {
	var step *StepError
	if !errors.As(err, &step) {
		return err
	}
	if step.Index >= 0 && step.Errno == unix.EBUSY && l.plan.Steps[step.Index].wire.op == jailinit.OpMonitor {
		return &SpecError{Field: "denied", Value: "true", Problem: "can't be had inside another monitor: the kernel lets one process listen to a process and all that it starts, and this one is watched already, by a jail around it or by a container engine"}
	}
	switch step.Errno {
	case unix.EPERM, unix.EACCES, unix.ENOSYS, unix.EINVAL, unix.ENOSPC, unix.EUSERS, unix.EOPNOTSUPP, unix.ENODEV:
	case unix.ENOENT: // of /proc, if of anything of the host's
	default:
		return err
	}
	call, fsType := callOf[step.Op], ""
	mine := step.Index < 0 && call != "" || step.Op == "execveat"
	if step.Index >= 0 {
		s := l.plan.Steps[step.Index]
		if step.Errno == unix.ENOENT && !within(s.Path, "/proc") {
			return err
		}
		switch fsType = s.Type; s.wire.op {
		case 0:
			mine = s.Op == "cgroup" // Landlock around us: to access(2) it was writable
		case jailinit.OpFS:
			call = "fsopen"
			mine = true
		case jailinit.OpBind: // of what was asked for the errors are the user's
			mine = step.Errno == unix.EPERM || step.Errno == unix.ENOSYS
		case jailinit.OpOpen, jailinit.OpWrite, jailinit.OpLoUp, jailinit.OpHostname, jailinit.OpRoot, jailinit.OpPivot, jailinit.OpMount,
			jailinit.OpSetattr, jailinit.OpMknod, jailinit.OpUnshare, jailinit.OpSetns, jailinit.OpRuleset, jailinit.OpRestrict, jailinit.OpNNP,
			jailinit.OpFilter, jailinit.OpMonitor, jailinit.OpGroups, jailinit.OpGID, jailinit.OpUID, jailinit.OpSubreaper:
			mine = true
		}
	}
	if !mine {
		return err
	}
	return &UnsupportedError{Level: l.spec.Level, Step: step, call: call, fsType: fsType}
}

// ways is the table of what is done when a step fails: another way of the same strength, or less for the payload. Of the
// rows that fit, the first is taken that has something to learn.
var ways = []struct {
	op      string // of the step; "" is any
	kind    string // its Type, or ""
	errnos  []syscall.Errno
	learned func(h *Host, s *Step) bool
}{
	// Root of a user namespace around us makes no devices, and that may lack the uid that was claimed: EINVAL, or EPERM, at
	// whatever meets it first. Compile knows whether root can go another way.
	{errnos: []syscall.Errno{unix.EINVAL, unix.EPERM}, learned: func(h *Host, _ *Step) bool {
		unmapped := h.live && h.OwnUID != 0 && !uidMapped(h.OwnUID)
		if unmapped {
			h.dropOwnUID()
		}
		return unmapped
	}},
	{op: "mknod", errnos: []syscall.Errno{unix.EPERM}, learned: fact(func(h *Host) *bool { return &h.NoMknod })},
	// A filter that does not know clone3 says so with ENOSYS, that programs fall back (as Docker's does). With EPERM no
	// program of glibc has threads.
	{op: "clone3", errnos: []syscall.Errno{unix.ENOSYS}, learned: fact(func(h *Host) *bool { return &h.NoClone3 })},
	// In an ordinary user's jail with a cgroup there is one cgroup namespace: see oneCgroupNamespace.
	{op: "clone3", errnos: []syscall.Errno{unix.ENOSPC}, learned: outerCgroups},
	{op: "clone", errnos: []syscall.Errno{unix.ENOSPC}, learned: outerCgroups},
	// No memfd may be executed: vm.memfd_noexec=2, or an LSM. Or none may be made.
	{op: "execveat", errnos: refused, learned: fact(func(h *Host) *bool { return &h.NoMemfd })},
	{op: "make jail-init", errnos: refused, learned: fact(func(h *Host) *bool { return &h.NoMemfd })},
	{op: "write the Plan", errnos: refused, learned: fact(func(h *Host) *bool { return &h.NoMemfd })},
	// mount(2) alone may be refused; fsopen(2) and its like do the same.
	{op: "mount", errnos: refused, learned: fact(func(h *Host) *bool { return &h.NoMountCall })},
	// An outer sandbox may have covered parts of /sys: an empty one shows less.
	{op: "mount", kind: "sysfs", errnos: noMount, learned: fact(func(h *Host) *bool { return &h.NoSysfs })},
	// Or of /proc. To show the one that is there is a weaker way: Compile takes it where Spec.OuterProc allows it.
	{op: "mount", kind: "proc", errnos: noMount, learned: fact(func(h *Host) *bool { return &h.NoProc })},
	// Without pseudo-terminals the payload has less.
	{op: "mount", kind: "devpts", errnos: append(noMount, unix.EINVAL), learned: fact(func(h *Host) *bool { return &h.NoDevpts })},
	// unshare(2) or setns(2) may be refused and clone not; or there is no /proc to open the namespace in.
	{op: "unshare", errnos: refused, learned: noAside},
	{op: "setns", errnos: refused, learned: noAside},
	{op: "open", errnos: []syscall.Errno{unix.ENOENT}, learned: noAside},
	// Root does without id maps where it can have no user namespace; Compile decides what that means for a folder.
	{op: "unshare", errnos: append(refused, unix.EINVAL, unix.ENOSPC, unix.EUSERS), learned: noMaps},
	{op: "write", errnos: append(refused, unix.ENOENT), learned: noMaps},
	// The profiles of podman and Docker refuse sethostname(2) also in a namespace of its own.
	{op: "sethostname", errnos: refused, learned: fact(func(h *Host) *bool { return &h.NoHostname })},
	// No place for a private TMPDIR: the payload has none.
	{op: "mkdir", errnos: append(refused, unix.EROFS, unix.ENOENT), learned: func(h *Host, s *Step) bool {
		return s.Side == SideLauncher && set(&h.NoScratch)
	}},
	// overlayfs and some network file systems can't map ids; Compile decides what that means for the folder.
	{op: "bind", errnos: []syscall.Errno{unix.EINVAL, unix.EPERM, unix.EOPNOTSUPP}, learned: func(h *Host, s *Step) bool {
		if s.wire.d == 0 || h.NoIDMapAt[s.Source] {
			return false
		}
		// The first one may hold a mount of another kind, as / holds /proc; a second one tells of their file system.
		if len(h.NoIDMapAt) > 0 {
			h.NoIDMap[s.wire.b] = true
		}
		h.NoIDMapAt[s.Source] = true
		return true
	}},
}

var (
	// refused is what filters and LSMs say.
	refused = slices.Clip([]syscall.Errno{unix.EPERM, unix.EACCES, unix.ENOSYS})
	// noMount is what the kernel says of a file system that it has not, or does not give to a user namespace.
	noMount = slices.Clip([]syscall.Errno{unix.EPERM, unix.ENODEV})
)

// fact learns one fact, once.
func fact(of func(h *Host) *bool) func(*Host, *Step) bool {
	return func(h *Host, _ *Step) bool { return set(of(h)) }
}

func outerCgroups(h *Host, _ *Step) bool { return atCgroupRoot() && set(&h.OuterCgroups) }

// atCgroupRoot says whether this process sees no path of a cgroup but the root's.
func atCgroupRoot() bool {
	text, err := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, ":/\n") {
			return false
		}
	}
	return err == nil
}

func set(fact *bool) bool {
	was := *fact
	*fact = true
	return !was
}

func noAside(h *Host, s *Step) bool {
	return (slices.Contains(s.List, "CLONE_NEWNET") || s.wire.a == netSlot) && set(&h.NoAside)
}

func noMaps(h *Host, s *Step) bool {
	return s.Side == SideAside && !slices.Contains(s.List, "CLONE_NEWNET") && set(&h.NoMaps)
}

// learn adds what a failed step says about the host. It returns false where there is no other way.
func (h *Host) learn(p *Plan, e *StepError) bool {
	s := &Step{}
	if e.Index >= 0 {
		s = &p.Steps[e.Index]
	}
	for _, w := range ways {
		if (w.op == "" || w.op == e.Op) && (w.kind == "" || w.kind == s.Type) && slices.Contains(w.errnos, e.Errno) && w.learned(h, s) {
			return true
		}
	}
	return false
}

// highest is the highest level below the Spec's that this host can give, found by trying.
func highest(spec *Spec) Level {
	for level := spec.Level - 1; level >= Basic; level-- {
		if _, err := try(spec.at(level)); err == nil {
			return level
		}
	}
	return 0
}
