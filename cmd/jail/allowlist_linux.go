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
		return &isolate.SpecError{Field: "seccomp", Value: o.seccomp, Problem: "can't be used: " + err.Error()}
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
	return &isolate.AllowList{Name: o.seccomp, BPF: seccomp.Bytes(program)}, nil
}

// evaluate asks the filters of a Spec about a call.
func evaluate(spec *isolate.Spec, name string) ([]verdict, error) {
	var verdicts []verdict
	ask := func(filter string, program []byte) error {
		answer, err := seccomp.Evaluate(program, name, runtime.GOARCH)
		passes := answer.Action == seccomp.Allow || answer.Action == seccomp.Log
		verdicts = append(verdicts, verdict{filter: filter, action: answer.Action.String(), passes: passes, byArguments: answer.ByArguments})
		return err
	}
	filters := 0
	if !spec.NoFilter && len(spec.Filter) > 0 {
		filters++
		if err := ask("", spec.Filter); err != nil {
			return nil, err
		}
	}
	if spec.AllowList != nil {
		filters++
		if err := ask(spec.AllowList.Name, spec.AllowList.BPF); err != nil {
			return nil, err
		}
	}
	if filters == 0 { // a word that is no call is a mistake all the same
		if _, err := seccomp.Evaluate(allowAll, name, runtime.GOARCH); err != nil {
			return nil, err
		}
	}
	return verdicts, nil
}

// allowAll is a filter that returns SECCOMP_RET_ALLOW.
var allowAll = []byte{6, 0, 0, 0, 0, 0, 0xff, 0x7f}
