// Command worker is the part of converter that decodes. It has no files and no network: its picture, its memory and its
// progress go through the broker.
package main

import (
	"context"
	"fmt"
	"image"
	"image/draw"
	_ "image/gif"
	_ "image/jpeg"
	_ "image/png"
	"os"

	"github.com/jailrun/jail/examples/converter/picture"
	"github.com/jailrun/jail/ipc"
)

func main() {
	if err := decode(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func decode(ctx context.Context) error {
	hello, err := ipc.Dial()
	if err != nil {
		return err
	}
	session, err := hello.Authenticate(ctx)
	if err != nil {
		return err
	}
	in, err := session.Open(ctx, "in", "", ipc.MayRead)
	if err != nil {
		return err
	}
	defer in.Close()
	segment, err := session.Memory(ctx, "pixels")
	if err != nil {
		return err
	}
	defer segment.Close()

	decoded, _, err := image.Decode(in)
	if err != nil {
		return err
	}
	b := decoded.Bounds()
	grey, err := picture.Pixels(segment, b.Dx(), b.Dy())
	if err != nil {
		return err
	}
	out := &image.Gray{Pix: grey, Stride: b.Dx(), Rect: b}
	for y := b.Min.Y; y < b.Max.Y; y += 100 {
		lines := image.Rect(b.Min.X, y, b.Max.X, min(y+100, b.Max.Y))
		draw.Draw(out, lines, decoded, lines.Min, draw.Src)
		if err := session.Progress(ctx, uint64(lines.Max.Y-b.Min.Y), uint64(b.Dy()), ""); err != nil {
			return err
		}
	}
	_, err = session.Terminate(ctx)
	return err
}
