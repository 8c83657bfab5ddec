//go:build cgo && (amd64 || arm64)

package isolate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// address is that of a connect or bind.
func (m *monitor) address(n *notification) (text string, raw []byte) { return addressAt(n, 1, 2) }

// addressAt reads the address that an argument points to, once: for people, and as it is.
func addressAt(n *notification, at, length int) (text string, raw []byte) {
	raw = make([]byte, min(n.Data.Args[length], unix.SizeofSockaddrAny+16))
	if got, err := readMemory(int(n.Pid), n.Data.Args[at], raw); err != nil || got < 2 || got < len(raw) {
		return "", nil
	}
	switch family := binary.NativeEndian.Uint16(raw); {
	case family == unix.AF_INET && len(raw) >= 8:
		return plainAddress(netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), binary.BigEndian.Uint16(raw[2:]))), raw
	case family == unix.AF_INET6 && len(raw) >= 24:
		return plainAddress(netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])), binary.BigEndian.Uint16(raw[2:]))), raw
	case family == unix.AF_UNIX && len(raw) > 2 && raw[2] == 0:
		return "@" + string(raw[3:]), raw
	case family == unix.AF_UNIX:
		path, _, _ := bytes.Cut(raw[2:], []byte{0})
		return string(path), raw
	default:
		return "family " + strconv.Itoa(int(family)), raw
	}
}

// lookConnect tells what the kernel is going to refuse of a connect.
func (m *monitor) lookConnect(n *notification, text string, raw []byte) Denial {
	if raw == nil {
		return Denial{}
	}
	refused := func(errno unix.Errno) Denial {
		return Denial{Argument: text, Errno: unix.ErrnoName(errno), Why: NoNetwork}
	}
	switch family := binary.NativeEndian.Uint16(raw); {
	case family == unix.AF_UNIX && strings.HasPrefix(text, "@"):
		if m.own && !listed("/proc/"+strconv.Itoa(int(n.Pid))+"/net/unix", text) {
			return refused(unix.ECONNREFUSED)
		}
	case family == unix.AF_UNIX && text != "":
		f := file{want: wanted{write: true}}
		if !f.place(n, unix.AT_FDCWD, text) {
			return Denial{}
		}
		d := m.lookFile(n, f)
		if d.Why == ReadOnly || d.Why == NotInView && !m.mounts {
			return Denial{} // neither a read-only mount nor Landlock closes a socket
		}
		return d
	case m.own && (family == unix.AF_INET || family == unix.AF_INET6):
		a, err := netip.ParseAddrPort(text)
		switch {
		case err != nil:
		case !a.Addr().IsLoopback() && !a.Addr().IsUnspecified():
			return refused(unix.ENETUNREACH)
		case isStream(n) && !listens("/proc/"+strconv.Itoa(int(n.Pid))+"/net/", a.Port()): // what listens there on the host is out of reach
			return refused(unix.ECONNREFUSED)
		}
	}
	return Denial{}
}

// isStream says whether a connect can be refused by who is not there.
func isStream(n *notification) bool {
	socket, err := socketOf(n)
	if err != nil {
		return false
	}
	defer unix.Close(socket)
	kind, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && kind == unix.SOCK_STREAM
}

// listens says whether a socket listens on a port, in the lists of a folder of /proc.
func listens(dir string, port uint16) bool {
	const listening = "0A"
	for _, file := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(dir + file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			if len(words) > 3 && words[3] == listening && strings.HasSuffix(words[1], fmt.Sprintf(":%04X", port)) {
				return true
			}
		}
	}
	return false
}

// listed says whether a list of sockets has one of that name, which /proc writes with @ for every NUL.
func listed(file, name string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return true
	}
	name = strings.ReplaceAll(name, "\x00", "@")
	for line := range strings.Lines(string(text)) {
		if strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+name) {
			return true
		}
	}
	return false
}
