//go:build cgo && (amd64 || arm64)

package main

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/seccomp"
)

// allowList compiles the profile of --seccomp FILE.
func (o *options) allowList() (*isolate.AllowList, error) {
	capabilities, err := isolate.AddedCapabilities(o.capAdd, o.capDrop)
	if err != nil {
		return nil, err
	}
	target, err := seccomp.ThisHost(capabilities)
	if err != nil {
		return nil, err
	}
	about := func(err error) error {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		problem := &isolate.SpecError{Field: "seccomp", Value: o.seccomp, Problem: "can't be used: " + err.Error()}
		var unknown *seccomp.UnknownCallError
		if errors.As(err, &unknown) {
			return &hinted{problem, nearestCall(unknown.Name)}
		}
		return problem
	}
	f, err := os.Open(o.seccomp)
	if err != nil {
		return nil, about(err)
	}
	defer f.Close()
	profile, unknown, err := seccomp.Read(f, target)
	if err != nil {
		return nil, about(err)
	}
	program, err := seccomp.Compile(profile, runtime.GOARCH)
	if err != nil {
		return nil, about(err)
	}
	if len(unknown) > 0 {
		complain("note: seccomp " + quote(o.seccomp) + ": left out, as no such call is known: " + strings.Join(unknown, ", "))
	}
	return &isolate.AllowList{Name: o.seccomp, BPF: seccomp.Bytes(program), Log: profile.Log}, nil
}
