package main

import (
	"context"
	"net"
	"net/rpc"
	"os"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The service has two methods: Echo, and Stream, which sends for ever. net/rpc has no streams: its figure is calls, of
// which outstanding are under way at any time.
const (
	service     = "bench.Bench"
	outstanding = 64
)

type netRPC struct{}

func (netRPC) Echo(request, answer *[]byte) error {
	*answer = *request
	return nil
}

func serveNetRPC(_ config, f *os.File) error {
	server := rpc.NewServer()
	if err := server.RegisterName(service, netRPC{}); err != nil {
		return err
	}
	conn, err := accept(f)
	if err != nil {
		return err
	}
	server.ServeConn(conn)
	return nil
}

func connectNetRPC(c config, ours any) (operation, error) {
	conn, err := dial(ours.(string))
	if err != nil {
		return nil, err
	}
	client := rpc.NewClient(conn)
	request := make([]byte, c.bytes)
	if c.test != "stream" {
		var answer []byte
		return repeat(func() error { return client.Call(service+".Echo", &request, &answer) }), nil
	}
	done := make(chan *rpc.Call, outstanding)
	for range outstanding {
		client.Go(service+".Echo", &request, new([]byte), done)
	}
	return repeat(func() error {
		call := <-done
		client.Go(service+".Echo", &request, call.Reply, done)
		return call.Error
	}), nil
}

func serveTTRPC(c config, f *os.File) error {
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	server.RegisterService(service, &ttrpc.ServiceDesc{
		Methods: map[string]ttrpc.Method{
			"Echo": func(_ context.Context, unmarshal func(any) error) (any, error) {
				message := &wrapperspb.BytesValue{}
				return message, unmarshal(message)
			},
		},
		Streams: map[string]ttrpc.Stream{
			"Stream": {
				StreamingServer: true,
				Handler: func(_ context.Context, s ttrpc.StreamServer) (any, error) {
					request := &wrapperspb.BytesValue{}
					if err := s.RecvMsg(request); err != nil {
						return nil, err
					}
					for message := wrapperspb.Bytes(make([]byte, c.bytes)); ; {
						if err := s.SendMsg(message); err != nil {
							return nil, err
						}
					}
				},
			},
		},
	})
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	return server.Serve(context.Background(), l)
}

func connectTTRPC(c config, ours any) (operation, error) {
	conn, err := dial(ours.(string))
	if err != nil {
		return nil, err
	}
	ctx, client := context.Background(), ttrpc.NewClient(conn)
	request, answer := wrapperspb.Bytes(make([]byte, c.bytes)), &wrapperspb.BytesValue{}
	operate := func() error { return client.Call(ctx, service, "Echo", request, answer) }
	if c.test == "stream" {
		s, err := client.NewStream(ctx, &ttrpc.StreamDesc{StreamingServer: true}, service, "Stream", request)
		if err != nil {
			return nil, err
		}
		operate = func() error { return s.RecvMsg(answer) }
	}
	return repeat(operate), nil
}

// grpcService is what protoc-gen-go-grpc would make.
func grpcService(c config) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Echo",
			Handler: func(_ any, _ context.Context, unmarshal func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				message := &wrapperspb.BytesValue{}
				return message, unmarshal(message)
			},
		}},
		Streams: []grpc.StreamDesc{{
			StreamName:    "Stream",
			ServerStreams: true,
			Handler: func(_ any, s grpc.ServerStream) error {
				for message := wrapperspb.Bytes(make([]byte, c.bytes)); ; {
					if err := s.SendMsg(message); err != nil {
						return err
					}
				}
			},
		}},
	}
}

func serveGRPC(c config, f *os.File) error {
	server := grpc.NewServer()
	server.RegisterService(grpcService(c), nil)
	l, err := net.FileListener(f)
	if err != nil {
		return err
	}
	return server.Serve(l)
}

func connectGRPC(c config, ours any) (operation, error) {
	path := ours.(string)
	client, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	request, answer := wrapperspb.Bytes(make([]byte, c.bytes)), &wrapperspb.BytesValue{}
	operate := func() error { return client.Invoke(ctx, "/"+service+"/Echo", request, answer) }
	if err := operate(); err != nil { // it connects now
		return nil, err
	}
	if c.test == "stream" {
		s, err := client.NewStream(ctx, &grpcService(c).Streams[0], "/"+service+"/Stream")
		if err == nil {
			err = s.CloseSend()
		}
		if err != nil {
			return nil, err
		}
		operate = func() error { return s.RecvMsg(answer) }
	}
	return repeat(operate), os.Remove(path)
}
