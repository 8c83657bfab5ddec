// Command bench compares jail with its peers and with plain C, side by side in one run, and prints ratios. It is no
// test: it fails only if something can't be run. `make bench` builds bin/jail and starts it; flags:
// make bench BENCH='-json bench.json -only library'.
//
// Level namespaced (process, library and memory) is compared with bubblewrap of equal isolation: mount, PID, IPC, UTS,
// network and cgroup namespaces (and a user namespace for an ordinary user), the same folders shown, own /proc, /dev,
// /tmp, /var/tmp, /run, /dev/shm and home, a host name, a session, no capabilities, death with the launcher. What jail
// does beyond it: a fresh /sys and a system call filter (bubblewrap has neither by default), and as root another uid for
// the payload and an id-mapped working folder.
//
// Level limited is compared with level namespaced (limited_linux.go), and level contained on a root file system with
// crun and runc (contained_linux.go). What a policy adds to a start, and filters to ordinary calls, is in
// policy_linux.go. Group ipc (ipc_linux.go) compares means of communication, in the programs of peers; docs/ipc-bench.md
// has its figures.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// A figure is one line of the report.
type figure struct {
	Part    string  `json:"part"`
	User    string  `json:"user"` // root or ordinary
	Name    string  `json:"name"`
	Min     float64 `json:"min,omitempty"`
	Value   float64 `json:"value"` // median
	P95     float64 `json:"p95,omitempty"`
	Unit    string  `json:"unit"`
	Peer    string  `json:"peer,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"` // of the medians, to the peer's
	Goal    float64 `json:"goal,omitempty"`  // for the ratio, or for the value where there is no ratio
	Never   float64 `json:"never_above,omitempty"`
	Problem string  `json:"problem,omitempty"` // why it could not be measured
}

// A kind is one of the commands that are compared.
type kind struct {
	name        string
	args        []string
	goal, never float64 // for the ratio
}

type bench struct {
	dir     string // what is built for the run
	work    string // the working folder of what is launched
	runs    int
	held    int
	figures []figure
	ipc     []ipcFigure
}

// account is who launches.
type account struct {
	name   string
	uid    int
	home   string
	around []string // the start of a command line that our own account runs around this one's
}

func main() {
	b := &bench{}
	out := flag.String("json", "", "write the figures to this `file` too")
	only := flag.String("only", "process,library,memory,limited,contained,policy,filter,ipc", "the parts to measure")
	plots := flag.String("plots", "", "write the plots of group ipc to this `folder`")
	flag.IntVar(&b.runs, "runs", 200, "launches of each kind; group ipc has a round for 40")
	flag.IntVar(&b.held, "held", 1000, "jails that run at once for the memory figures")
	flag.Parse()
	err := b.run(strings.Split(*only, ","))
	if err == nil && *out != "" {
		err = b.writeJSON(*out)
	}
	if err == nil && *plots != "" {
		err = b.plotIPC(*plots)
	}
	b.print()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(parts []string) error {
	var err error
	if b.dir, err = os.MkdirTemp("", "jail-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.work = filepath.Join(b.dir, "work")
	home := filepath.Join(b.dir, "home")
	// The ordinary user has to get at it.
	err = errors.Join(os.Chmod(b.dir, 0o755), os.Mkdir(b.work, 0o755), os.Mkdir(home, 0o755))
	if err == nil {
		err = command("install", "-m", "755", "bin/jail", b.program("jail")).Run()
	}
	if err == nil && slices.ContainsFunc(parts, func(part string) bool { return slices.Contains([]string{"process", "library", "memory"}, part) }) {
		err = b.build()
	}
	if err != nil {
		return err
	}
	accounts := []account{{name: "ordinary", uid: os.Getuid(), home: os.Getenv("HOME")}}
	if os.Getuid() == 0 {
		// A uid that nobody has; see `man setpriv`.
		accounts = []account{{name: "root", home: "/root"}, {name: "ordinary", uid: 65533, home: home}}
	}
	if i := slices.Index(parts, "ipc"); i >= 0 {
		parts = slices.Delete(parts, i, i+1)
		if err := b.measureIPC(); err != nil {
			return err
		}
	}
	for _, a := range accounts {
		for _, part := range parts {
			switch part {
			case "process":
				err = b.process(a)
			case "library":
				b.library(a)
			case "memory":
				b.memory(a)
			case "limited":
				b.limited(a)
			case "contained":
				err = b.contained(a)
			case "policy":
				err = b.policy(a)
			case "filter":
				err = b.filter(a)
			default:
				err = fmt.Errorf("no part is called %q", part)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// build makes the programs that the level namespaced is compared with and by.
func (b *bench) build() error {
	for _, name := range []string{"empty", "floor", "spawn", "pause"} {
		to := b.program(name)
		if name == "pause" {
			to = filepath.Join(b.work, name) // it has to be seen inside
		}
		src := filepath.Join("tests/bench/c", name+".c")
		if err := command("gcc", "-O2", "-static", "-Wall", "-o", to, src).Run(); err != nil {
			return fmt.Errorf("%s: %w", src, err)
		}
	}
	env := append(os.Environ(), "CGO_ENABLED=1", "GOFLAGS=-buildvcs=false")
	flags := []string{"build", "-tags", "osusergo,netgo", "-ldflags", "-s -w -linkmode external -extldflags -static"}
	for _, name := range []string{"empty", "launcher"} {
		to := b.program(name)
		if name == "empty" {
			to = b.program("empty-go")
		}
		c := command("go", append(slices.Clone(flags), "-o", to, "./tests/bench/"+name)...)
		c.Env = env
		if err := c.Run(); err != nil {
			return fmt.Errorf("tests/bench/%s: %w", name, err)
		}
	}
	return nil
}

func (b *bench) program(name string) string { return filepath.Join(b.dir, name) }

// command shows what it prints as errors.
func command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Stderr = os.Stderr
	return c
}

// as makes a command that an account runs, in the working folder, with a small environment.
func (b *bench) as(a account, args ...string) *exec.Cmd {
	if a.uid != os.Getuid() {
		id := fmt.Sprint(a.uid)
		args = append([]string{"setpriv", "--reuid", id, "--regid", id, "--clear-groups"}, args...)
	}
	args = slices.Concat(a.around, args)
	c := command(args[0], args[1:]...)
	c.Dir = b.work
	c.Env = environment(a)
	return c
}

func environment(a account) []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + a.home, "USER=" + a.name,
		"LANG=C.UTF-8", "TERM=dumb",
	}
}

// bubblewrap is bwrap's command line for the isolation of level namespaced.
func (b *bench) bubblewrap(a account, payload ...string) []string {
	args := []string{"bwrap", "--die-with-parent", "--new-session", "--clearenv"}
	if a.uid == 0 {
		args = append(args, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup")
	} else {
		args = append(args, "--unshare-all")
	}
	for _, kv := range environment(a) {
		name, value, _ := strings.Cut(kv, "=")
		args = append(args, "--setenv", name, value)
	}
	for _, path := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt"} {
		if target, err := os.Readlink(path); err == nil {
			args = append(args, "--symlink", target, path)
		} else if _, err := os.Stat(path); err == nil {
			args = append(args, "--ro-bind", path, path)
		}
	}
	args = append(args, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm", "--tmpfs", "/tmp",
		"--tmpfs", "/var/tmp", "--tmpfs", "/run", "--tmpfs", a.home, "--ro-bind", b.work, b.work, "--chdir", b.work,
		"--hostname", "jail", "--cap-drop", "ALL", "--")
	return append(args, payload...)
}

func (b *bench) floor(a account, payload ...string) []string {
	return append([]string{b.program("floor"), b.work, a.home}, payload...)
}

func (b *bench) add(f figure) {
	b.figures = append(b.figures, f)
	if f.Problem != "" {
		fmt.Fprintf(os.Stderr, "%s, %s, %s: %s\n", f.Part, f.User, f.Name, f.Problem)
	}
}

func (b *bench) writeJSON(path string) error {
	all := []any{}
	for _, f := range b.figures {
		all = append(all, f)
	}
	for _, f := range b.ipc {
		all = append(all, f)
	}
	text, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func (b *bench) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	part := ""
	for _, f := range b.figures {
		if title := f.Part + ", " + f.User; title != part {
			part = title
			ratio := ""
			if f.Peer != "" {
				ratio = "/ " + f.Peer
			}
			fmt.Fprintf(w, "\n%s\tmedian\tmin\t95 %%\t%s\tgoal\tnever above\t\n", title, ratio)
		}
		if f.Problem != "" {
			fmt.Fprintf(w, "  %s\tnot measured\n", f.Name)
			continue
		}
		fmt.Fprintf(w, "  %s\t%.2f %s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Name, f.Value, f.Unit,
			number(f.Min), number(f.P95), number(f.Ratio), number(f.Goal), number(f.Never), f.verdict())
	}
	w.Flush()
	b.printIPC()
}

func number(v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", v)
}

func (f figure) verdict() string {
	measured := f.Ratio
	if measured == 0 {
		measured = f.Value
	}
	switch {
	case f.Goal == 0:
		return ""
	case measured <= f.Goal:
		return "reached"
	case f.Never != 0 && measured > f.Never:
		return "TOO MUCH"
	}
	return "missed"
}

// sample is the figure of a kind that was measured many times.
func sample(part string, a account, name string, ms []float64) figure {
	s := slices.Sorted(slices.Values(ms))
	return figure{Part: part, User: a.name, Name: name, Unit: "ms", Min: s[0], Value: median(s), P95: s[(len(s)*95-1)/100]}
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
