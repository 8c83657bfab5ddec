//go:build linux && cgo && (amd64 || arm64)

package main

import (
	"bytes"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestConverter(t *testing.T) {
	folder := t.TempDir()
	worker := filepath.Join(folder, "worker")
	build := exec.Command("go", "build", "-o", worker, "./worker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // static: there is no libc in the jail
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	in, out := filepath.Join(folder, "in.png"), filepath.Join(folder, "out.pgm")
	picture := image.NewGray(image.Rect(0, 0, 3, 2))
	for i := range picture.Pix {
		picture.Pix[i] = uint8(40 * i)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, picture); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in, b.Bytes(), 0o600); err != nil { // root's payload could not open it by its path
		t.Fatal(err)
	}
	if err := convert(t.Context(), worker, in, out); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != "P5 3 2 255\n"+string(picture.Pix) {
		t.Errorf("%q, %v", got, err)
	}

	if err := os.WriteFile(in, b.Bytes()[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := convert(t.Context(), worker, in, out); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("half a picture: %v", err)
	}
}
