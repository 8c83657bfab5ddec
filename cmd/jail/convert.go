package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/jailrun/jail/policies"
)

// convertPolicy prints a policy as an OCI configuration, or a configuration as a policy, and on stderr what is lost. Its
// exit code is 1 where something is.
func convertPolicy(args []string) int {
	name := args[0]
	filters, err := ociFilters()
	if err != nil {
		return fail(err)
	}
	text, isConfig, err := readConfig(name)
	if err != nil {
		return fail(err)
	}
	var lost []policies.Lost
	if isConfig {
		lost, err = printFromOCI(name, text, filters)
	} else {
		lost, err = printOCI(name, filters)
	}
	if err != nil {
		return fail(err)
	}
	for _, l := range lost {
		complain("lost: " + l.Key + " (" + l.Why + ")")
	}
	if len(lost) > 0 {
		return 1
	}
	return 0
}

// readConfig reads a file and says whether it is an OCI configuration: those have an ociVersion, policies a version.
func readConfig(name string) (text []byte, isConfig bool, err error) {
	if !policies.IsFile(name) || filepath.Ext(name) != ".json" {
		return nil, false, nil
	}
	const most = 16 << 20
	f, err := os.Open(name)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	text, err = io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return nil, false, err
	case len(text) > most:
		return nil, false, fmt.Errorf("%s is larger than 16 MiB", quote(name))
	}
	var config struct {
		Version *string `json:"ociVersion"`
	}
	return text, json.Unmarshal(text, &config) == nil && config.Version != nil, nil
}

func printOCI(name string, filters policies.Filters) ([]policies.Lost, error) {
	loaded, err := policies.Load(name)
	if err != nil {
		return nil, err
	}
	config, lost, err := loaded.OCI(filters)
	if err != nil {
		return nil, err
	}
	printJSON(config)
	return lost, nil
}

func printFromOCI(name string, text []byte, filters policies.Filters) ([]policies.Lost, error) {
	bundle, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	settings, lost, err := policies.FromOCI(text, bundle, filters)
	if err != nil {
		return nil, errors.New(quote(name) + " " + err.Error())
	}
	var config struct {
		Process struct {
			Args []string `json:"args"`
		} `json:"process"`
	}
	_ = json.Unmarshal(text, &config) // it has been read
	words := make([]string, len(config.Process.Args))
	for i, a := range config.Process.Args {
		words[i] = quote(a)
	}
	comment := "The OCI configuration " + quote(name) + " as a policy. Its command goes on the command line: " + strings.Join(words, " ") + "\n"
	printLines(strings.Split(strings.TrimSuffix(policies.Format(comment, settings, true), "\n"), "\n"))
	return lost, nil
}
