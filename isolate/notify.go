package isolate

import (
	"net/netip"
	"path/filepath"
	"strings"
)

// Notify is something that this process does for the payload when it asks the kernel for it.
//
// An open of a path gives a copy of the host's file, in memory, as it was at the first open: at most 16 MiB, for reading
// alone. An open of another kind is refused (EACCES). The path is the one that the payload says, whether the view shows
// it or not; links in it count on the host when the run starts.
//
// A connect of a stream socket to an address is made from this process's network and with its credentials; what is sent
// is passed on. The payload's socket stays one of its own network. A Unix socket by a path is replaced by one that is
// connected.
//
// Which file and which address it is, is decided by a copy of the arguments; the kernel does not look at them again. All
// that is not listed is left to the kernel and the other borders.
type Notify struct {
	Kind NotifyKind `json:"kind"`
	What string     `json:"what"` // an absolute path; of a connect also "192.0.2.1:443" or "[2001:db8::1]:443"
}

// NotifyKind is a call that can be decided on.
type NotifyKind string

// The calls.
const (
	NotifyOpen    NotifyKind = "open"
	NotifyConnect NotifyKind = "connect"
)

// ParseNotify reads "open:PATH", "connect:ADDRESS:PORT" or "connect:PATH".
func ParseNotify(s string) (Notify, error) {
	kind, what, _ := strings.Cut(s, ":")
	n := Notify{NotifyKind(kind), what}
	wrong := func(problem string) (Notify, error) {
		return n, &SpecError{Field: "notify", Value: s, Problem: problem}
	}
	switch {
	case n.Kind != NotifyOpen && n.Kind != NotifyConnect:
		return wrong("is not open:PATH, connect:ADDRESS:PORT or connect:PATH")
	case filepath.IsAbs(what) && filepath.Clean(what) != what:
		return wrong("has dots or doubled slashes in its path")
	case filepath.IsAbs(what):
		return n, nil
	case n.Kind == NotifyOpen:
		return wrong("has no absolute path")
	}
	address, err := netip.ParseAddrPort(what)
	if err != nil || address.Port() == 0 || address.Addr().Zone() != "" {
		return wrong("has neither a numeric address with a port nor an absolute path")
	}
	n.What = plainAddress(address)
	return n, nil
}

// plainAddress writes an address in one way.
func plainAddress(a netip.AddrPort) string {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}

func (n Notify) String() string { return string(n.Kind) + ":" + n.What }
