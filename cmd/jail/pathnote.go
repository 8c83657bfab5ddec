package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/jailrun/jail/isolate"
)

// pathNote says where PATH leads the caller to another program than the payload, as it does with a virtualenv, nvm or
// pyenv that the jail does not show. "" is no difference, or one that was asked for with another PATH.
func pathNote(plan *isolate.Plan, process *specs.Process) string {
	name, path := process.Args[0], os.Getenv("PATH")
	if strings.Contains(name, "/") || path == "" || payloadPath(process.Env) != path {
		return ""
	}
	yours, theirs, hidden := "", "", ""
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if !filepath.IsAbs(file) {
			return "" // relative to a folder that may be another one in the jail
		}
		if yours == "" && executable(file) {
			yours = file
		}
		if theirs == "" {
			var closed string
			if theirs, closed = lookInJail(plan, file); hidden == "" && yours == file {
				hidden = closed
			}
		}
		if theirs != "" {
			break
		}
	}
	if yours == "" || yours == theirs || hidden == "" {
		return ""
	}
	inJail := "not to be had"
	if theirs != "" {
		inJail = quote(theirs)
	}
	return quote(name) + " is " + quote(yours) + " for you and " + inJail + " in the jail; " + showing(hidden) + " shows yours"
}

// payloadPath is PATH in the payload's environment; nil is isolate's default, which passes the caller's.
func payloadPath(env []string) string {
	if env == nil {
		return os.Getenv("PATH")
	}
	i := slices.IndexFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") })
	if i < 0 {
		return ""
	}
	return strings.TrimPrefix(env[i], "PATH=")
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// lookInJail follows path as the jail has it, link by link, each of them looked up in the view. It returns path where
// a program is there, else the name that the view does not show, if that is why.
func lookInJail(plan *isolate.Plan, path string) (found, hidden string) {
	const maxLinks = 40 // as the kernel has it
	at, host, links := "", "", 0
	for rest := split(path); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = strings.TrimSuffix(filepath.Dir("/"+at), "/")
			continue
		}
		at += "/" + name
		var shown bool
		if host, shown = plan.HostPath(at); !shown {
			host = "" // a folder on the way, or the end of it
			continue
		}
		target, err := os.Readlink(host)
		if err != nil {
			continue
		}
		if links++; links > maxLinks {
			return "", ""
		}
		if at = filepath.Dir(at); filepath.IsAbs(target) || at == "/" {
			at = ""
		}
		rest = append(split(target), rest...)
	}
	switch {
	case host == "":
		return "", at
	case executable(host):
		return path, ""
	}
	return "", ""
}

func split(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" || s == "." })
}

// showing is the flag that shows a program with what belongs to it: the folder that holds its bin.
func showing(program string) string {
	dir := filepath.Dir(program)
	switch filepath.Base(dir) {
	case "bin", "sbin", "shims":
		if up := filepath.Dir(dir); up != "/" && up != os.Getenv("HOME") {
			dir = up
		}
	}
	if strings.ContainsFunc(dir, func(r rune) bool { return !strings.ContainsRune("/._-+@%,=", r) && !plain(r) }) {
		dir = quote(dir)
	}
	return "--ro-bind " + dir
}

func plain(r rune) bool { return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
