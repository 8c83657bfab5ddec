// Command worker is the part of converter that decodes. It has no files and no network: its picture, its memory and its
// progress go through the broker.
package main

import (
	"context"
	"fmt"
	"image"
	"image/color"
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
	for y := range b.Dy() {
		for x := range b.Dx() {
			grey[y*b.Dx()+x] = color.GrayModel.Convert(decoded.At(b.Min.X+x, b.Min.Y+y)).(color.Gray).Y
		}
		if y%100 == 99 || y == b.Dy()-1 {
			if err := session.Progress(ctx, uint64(y+1), uint64(b.Dy()), ""); err != nil {
				return err
			}
		}
	}
	_, err = session.Terminate(ctx)
	return err
}
