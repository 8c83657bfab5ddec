// Command converter makes a grey picture (PGM) of any PNG, JPEG or GIF, without trusting the decoder: that runs in a jail
// whose file view is the decoder itself and nothing else. What it needs it gets from the broker: the picture as an open
// file, a segment of shared memory for the pixels, and a way to say how far it is.
//
//	converter WORKER IN OUT
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jailrun/jail/examples/converter/picture"
	"github.com/jailrun/jail/ipc"
	"github.com/jailrun/jail/isolate"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: converter WORKER IN OUT")
		os.Exit(2)
	}
	if err := convert(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "converter:", err)
		os.Exit(1)
	}
}

func convert(ctx context.Context, worker, in, out string) error {
	worker, err := filepath.Abs(worker)
	if err != nil {
		return err
	}
	if in, err = filepath.Abs(in); err != nil {
		return err
	}

	broker := ipc.NewBroker()
	defer broker.Close()
	pixels := []ipc.MemoryRule{{Name: "pixels", Size: picture.Size, Access: ipc.MayWrite}}
	jail, err := broker.Peer("decoder", ipc.Rules{
		Files:    []ipc.FileRule{{Name: "in", Path: in, Access: ipc.MayRead}},
		Memory:   pixels,
		Progress: true,
	}, ipc.Handlers{
		Progress: func(done, total uint64, _ string) { fmt.Fprintf(os.Stderr, "%d of %d lines\n", done, total) },
	})
	if err != nil {
		return err
	}
	segment, err := ourEnd(ctx, broker, pixels)
	if err != nil {
		return err
	}
	defer segment.Close()
	if err := decode(ctx, jail, worker); err != nil {
		return err
	}
	width, height, grey, err := picture.Read(segment) // written by the decoder: nothing of it is believed
	if err != nil {
		return err
	}
	return os.WriteFile(out, slices.Concat(fmt.Appendf(nil, "P5 %d %d 255\n", width, height), grey), 0o644)
}

// ourEnd is this process's own session with the broker: that way it has the segment too.
func ourEnd(ctx context.Context, broker *ipc.Broker, pixels []ipc.MemoryRule) (*ipc.Segment, error) {
	peer, err := broker.Peer("launcher", ipc.Rules{Memory: pixels}, ipc.Handlers{})
	if err != nil {
		return nil, err
	}
	session, err := peer.Session(ctx)
	if err != nil {
		return nil, err
	}
	return session.Memory(ctx, "pixels")
}

func decode(ctx context.Context, jail *ipc.Peer, worker string) error {
	socket, err := jail.Connect()
	if err != nil {
		return err
	}
	defer socket.Close()
	cmd := isolate.Command(ctx, isolate.Namespaced, "/decoder")
	cmd.Dir = "/"
	cmd.Env = []string{ipc.FDEnv + "=3"}
	cmd.ExtraFiles = []*os.File{socket}
	var said strings.Builder
	cmd.Stderr = &said
	spec := cmd.Spec()
	spec.View = []isolate.Rule{{Kind: isolate.Show, Path: "/decoder", Source: worker}}
	spec.Timeout = time.Minute
	spec.OutputLimit = 64 << 10
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("decoder: %w: %q", err, said.String())
	}
	return nil
}
