package main

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/policies"
)

// hint is a way out of an error, or "" where none is known.
func hint(err error) string {
	var policy *policyError
	var usage *usageError
	var part *partError
	var own *hinted
	var spec *isolate.SpecError
	var unsupported *isolate.UnsupportedError
	var exec *isolate.ExecError
	var step *isolate.StepError
	switch {
	case errors.As(err, &policy):
		return policy.hint()
	case errors.As(err, &usage):
		return usage.hint
	case errors.As(err, &part):
		return part.hint
	case errors.As(err, &own):
		return own.hint
	case errors.As(err, &spec):
		return specHint(spec)
	case errors.As(err, &unsupported):
		return unsupportedHint(unsupported)
	case errors.As(err, &exec):
		return execHint(exec)
	case errors.As(err, &step) && step.Errno == syscall.ESTALE:
		return "somebody exchanged it while the jail was made"
	}
	return ""
}

func specHint(e *isolate.SpecError) string {
	switch e.Field {
	case "level":
		var names []string
		for _, l := range isolate.Levels() {
			names = append(names, l.String())
		}
		return didYouMean(e.Value, names, "--level=", "")
	case "proc", "dev", "sys", "tmpfs":
		if strings.Contains(e.Problem, "symbolic link in the root") {
			return "make it a folder of the root file system, or remove it"
		}
	case "rlimit":
		name, _, _ := strings.Cut(e.Value, "=")
		name = strings.TrimPrefix(strings.ToLower(name), "rlimit_")
		return didYouMean(name, isolate.RlimitNames(), "--rlimit ", "")
	case "stdin", "stdout", "stderr":
		if strings.HasSuffix(e.Problem, "symbolic link") {
			return "an earlier payload may have made it; the shell's < and > follow links"
		}
	case string(isolate.Show), string(isolate.ShowWrite):
		if _, err := os.Lstat(e.Value); !errors.Is(err, os.ErrNotExist) || !strings.HasSuffix(e.Problem, syscall.ENOENT.Error()) {
			return ""
		}
		if src, dst, ok := strings.Cut(e.Value, ":"); ok && src != "" && dst != "" {
			return "the place in the jail has to be absolute: SRC:/DST"
		}
		return "--" + e.Field + "-try leaves out what does not exist"
	}
	return ""
}

func execHint(e *isolate.ExecError) string {
	switch e.Errno {
	case syscall.ENOEXEC:
		return "it is neither a program for this machine nor a script with a #! line"
	case syscall.ENOENT:
		if info, err := os.Stat(e.Name); err == nil && info.Mode().IsRegular() {
			return "you have that file; the jail shows it not, or not " + interpreter(e.Name) + " (--ro-bind)"
		}
	case syscall.EPERM:
		if fileCapabilities(e.Path) {
			return "it has file capabilities that the payload may not have, and the kernel does not run it without them; --level=namespaced does"
		}
	case syscall.EACCES:
		if info, err := os.Stat(e.Path); err == nil {
			switch {
			case info.IsDir():
				return "it is a folder"
			case info.Mode()&0o111 == 0:
				return "it is not executable: chmod +x"
			}
			return "the payload is another user, or the file is outside its view: --ro-bind shows a file, --user caller keeps your uid"
		}
	}
	return ""
}

// interpreter is what the kernel starts to run a file.
func interpreter(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return interpreterOf("")
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := f.Read(head)
	return interpreterOf(string(head[:n]))
}

func interpreterOf(head string) string {
	line, _, _ := strings.Cut(head, "\n")
	if words, ok := strings.CutPrefix(line, "#!"); ok && strings.TrimSpace(words) != "" {
		return "its interpreter " + quote(strings.Fields(words)[0])
	}
	return "its loader"
}

// unsupportedHint says who refused, the one thing that would change it, and which level is to be had as it is.
func unsupportedHint(e *isolate.UnsupportedError) string {
	var hints []string
	for _, part := range []string{e.Cause.Why, e.Cause.Remedy} {
		if part != "" {
			hints = append(hints, part)
		}
	}
	hints = []string{strings.Join(hints, ": ")}
	if e.Highest != 0 {
		hints = append(hints, "--level="+e.Highest.String()+" works here, and --allow-downgrade takes it where more can't be had")
	}
	return strings.TrimPrefix(strings.Join(hints, "; "), "; ")
}

// didYouMean suggests what was probably meant, or else says otherwise.
func didYouMean(word string, known []string, prefix, otherwise string) string {
	if near := policies.Nearest(word, known); near != "" {
		return "did you mean " + prefix + near + "?"
	}
	return otherwise
}
