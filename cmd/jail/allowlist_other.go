//go:build !linux || !cgo || !(amd64 || arm64)

package main

import (
	"errors"

	"github.com/jailrun/jail/isolate"
)

func (o *options) allowList() (*isolate.AllowList, error) {
	return nil, &isolate.SpecError{Field: "seccomp", Value: o.seccomp, Problem: "can't be used: this system has no such filters"}
}

func checkSyscallRule(string) error { return problem("can't be used: this system has no such filters") }

func foldCalls(map[string]bool) []string { return nil }

func unfoldCalls(string) []string { return nil }

func (o *options) callRules(*isolate.AllowList) (*isolate.CallRules, error) { return nil, nil }

func (o *options) evaluate(*isolate.Spec, string) ([]verdict, error) {
	return nil, errors.New("this system has no filters")
}

func (o *options) describeFilters(*isolate.Spec) ([]string, error) {
	return nil, errors.New("this system has no filters")
}
