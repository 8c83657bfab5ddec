// What jail's ipc is compared with. A module of its own, so that the peers' many dependencies are none of jail's.
module github.com/jailrun/jail/tests/bench/peers

go 1.26.0

require (
	github.com/containerd/ttrpc v1.2.10
	github.com/gofrs/flock v0.13.2
	github.com/jailrun/jail v0.0.0-00010101000000-000000000000
	golang.org/x/sys v0.50.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/containerd/log v0.1.0 // indirect
	github.com/sirupsen/logrus v1.9.4 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
)

replace github.com/jailrun/jail => ../../..
