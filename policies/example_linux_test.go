//go:build cgo && (amd64 || arm64)

package policies_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/policies"
)

// A program runs a command under a policy file, as jail run --policy does.
func ExampleLoaded_Spec() {
	dir, err := os.MkdirTemp("", "policy")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(file, []byte(`
version: 1
extends: plugin
permissions:
  env: [GREETING=hello]
borders:
  hostname: cell
  workdir: /
  timeout: 1m
`), 0o600); err != nil {
		log.Fatal(err)
	}

	loaded, err := policies.Load(file)
	if err != nil {
		log.Fatal(err)
	}
	spec, err := loaded.Spec("/bin/sh", "-c", `echo "$GREETING from $(hostname)"`)
	if err != nil {
		log.Fatal(err)
	}
	out, err := isolate.FromSpec(context.Background(), spec).Output()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(out))
	// Output: hello from cell
}
