package ipc

import (
	"encoding/binary"
	"fmt"
)

// The broker's wire format, version 1: docs/ipc.md has it for those who write a client. Every message, in both
// directions, is one packet of a SOCK_SEQPACKET socket: a fixed header, little-endian, and two texts.
const (
	protocolVersion = 1
	protocolMagic   = "jail-ipc"

	wireHeader = 32
	maxMessage = 4096                    // a packet
	maxText    = maxMessage - wireHeader // both texts together
	maxName    = 64                      // of a lock, a segment, a channel, a root, a result

	pathSeparator = "\x00"
)

// kind is what a message asks for. An answer has the kind of its request and answerBit.
type kind uint16

const (
	kindHello    kind = 1 + iota // A, B: the lowest and highest version that the client speaks; S: protocolMagic
	kindOpen                     // S: the root's name; T: the path below it; A: accessRead … accessCreate; B: 0, or how many paths T has
	kindLock                     // S: the lock's name; A: the LockMode; B: nanoseconds to wait, or waitForever
	kindUnlock                   // S: the lock's name
	kindCancel                   // A: the ID of a lock request that waits
	kindMemory                   // S: the segment's name; A: accessRead or accessWrite
	kindPublish                  // S: the name of a segment that the client has made, for others to read; one fd
	kindRelease                  // S: the name of a segment; A: 1 for a channel's
	kindChannel                  // S: the channel's name; A: the element's size, in bytes
	kindLog                      // A: the level, as log/slog's plus 128; S: the line
	kindProgress                 // A: done; B: of how much, 0 is not known; S: what is being done
	kindResult                   // S: the result's name; one fd
	kindQuit
	kindLimit // the first that is none

	kindEnd   kind = 0x7fff // of the broker alone: the session is over; its status and S say why
	answerBit kind = 0x8000
)

const waitForever = 1<<64 - 1

// What a client asks to do with a file or a segment.
const (
	accessRead = 1 + iota
	accessWrite
	accessCreate
)

// logLevelZero is the wire's number for slog.LevelInfo, which is 0 there.
const logLevelZero = 128

// In the answer to a hello, B has these bits.
const (
	helloByPidfd = 1 << iota // the peer is known by a pidfd of the kernel's; else by its credentials, which is racy
)

// status is how a request ended.
type status uint16

const (
	statusOK       status = iota
	statusProtocol        // malformed, or out of order: the session ends
	statusDenied          // no rule allows it
	statusLimit           // a quota is used up
	statusErrno           // a system call failed: A is its errno
	statusTimeout         // the wait is over, or was cancelled
	statusDeadlock        // the lock would have closed a cycle: S names its parties
	statusConflict        // there is one of that name, but of another size or kind
	statusNotReady        // what is asked for is being made by another: ask again
	statusNotHeld         // unlock or release of what the session has not
	statusVersion         // no version in common: the session ends
	statusGone            // the broker, or the peer's process, is ending
	statusLast
)

// message is one packet.
type message struct {
	Kind   kind
	Status status // 0 in a request
	ID     uint32 // of the request, chosen by the client; not 0
	A, B   uint64
	FDs    uint16 // how many come with it: in a request 0 or 1, in an answer up to MaxOpen
	S, T   string
}

// appendMessage appends m's packet to b. The texts must fit (maxText).
func appendMessage(b []byte, m *message) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(m.Kind))
	b = binary.LittleEndian.AppendUint16(b, uint16(m.Status))
	b = binary.LittleEndian.AppendUint32(b, m.ID)
	b = binary.LittleEndian.AppendUint64(b, m.A)
	b = binary.LittleEndian.AppendUint64(b, m.B)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(m.S)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(m.T)))
	b = binary.LittleEndian.AppendUint16(b, m.FDs)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = append(b, m.S...)
	return append(b, m.T...)
}

// parseMessage reads a packet. What it returns does not share p's memory.
func parseMessage(p []byte) (message, error) {
	if len(p) < wireHeader || len(p) > maxMessage {
		return message{}, fmt.Errorf("packet of %d bytes", len(p))
	}
	m := message{
		Kind:   kind(binary.LittleEndian.Uint16(p)),
		Status: status(binary.LittleEndian.Uint16(p[2:])),
		ID:     binary.LittleEndian.Uint32(p[4:]),
		A:      binary.LittleEndian.Uint64(p[8:]),
		B:      binary.LittleEndian.Uint64(p[16:]),
		FDs:    binary.LittleEndian.Uint16(p[28:]),
	}
	s, t := int(binary.LittleEndian.Uint16(p[24:])), int(binary.LittleEndian.Uint16(p[26:]))
	switch {
	case wireHeader+s+t != len(p):
		return message{}, fmt.Errorf("texts of %d and %d bytes in a packet of %d", s, t, len(p))
	case m.FDs > MaxOpen:
		return message{}, fmt.Errorf("%d fds", m.FDs)
	case p[30] != 0 || p[31] != 0:
		return message{}, fmt.Errorf("reserved bytes are not 0")
	}
	m.S, m.T = string(p[wireHeader:wireHeader+s]), string(p[wireHeader+s:])
	return m, nil
}

// uses lists what a kind of request has; all else must be 0 or empty, so that a later version can give it a meaning.
type uses struct {
	name       bool // S is a name
	text       bool // S is a text
	t, a, b    bool
	fds        uint16
	minA, maxA uint64
}

var requestUses = [kindLimit]uses{
	kindHello:    {text: true, a: true, b: true, maxA: 1<<64 - 1},
	kindOpen:     {name: true, t: true, a: true, b: true, minA: accessRead, maxA: accessCreate},
	kindLock:     {name: true, a: true, b: true, minA: uint64(Shared), maxA: uint64(Exclusive)},
	kindUnlock:   {name: true},
	kindCancel:   {a: true, minA: 1, maxA: 1<<32 - 1},
	kindMemory:   {name: true, a: true, minA: accessRead, maxA: accessWrite},
	kindPublish:  {name: true, fds: 1},
	kindRelease:  {name: true, a: true, maxA: 1},
	kindChannel:  {name: true, a: true, minA: 1, maxA: 1 << 32},
	kindLog:      {text: true, a: true, maxA: 2 * logLevelZero},
	kindProgress: {text: true, a: true, b: true, maxA: 1<<64 - 1},
	kindResult:   {name: true, fds: 1},
	kindQuit:     {},
}

// checkRequest says what is wrong with a message as a request.
func checkRequest(m *message) error {
	if m.Kind == 0 || m.Kind >= kindLimit {
		return fmt.Errorf("kind %d is no request", m.Kind)
	}
	u := requestUses[m.Kind]
	switch {
	case m.Status != 0:
		return fmt.Errorf("request with status %d", m.Status)
	case m.ID == 0:
		return fmt.Errorf("request without a number")
	case m.FDs != u.fds:
		return fmt.Errorf("request of kind %d with %d fds", m.Kind, m.FDs)
	case u.name && !validName(m.S):
		return fmt.Errorf("%.80q is no name", m.S)
	case !u.name && !u.text && m.S != "", !u.t && m.T != "":
		return fmt.Errorf("request of kind %d with a text that it does not have", m.Kind)
	case u.a && (m.A < u.minA || m.A > u.maxA), !u.a && m.A != 0, !u.b && m.B != 0:
		return fmt.Errorf("request of kind %d with numbers %d and %d", m.Kind, m.A, m.B)
	}
	return nil
}

// validName says whether s can name something: letters, digits, '.', '_' and '-', no '.' at its start.
func validName(s string) bool {
	if s == "" || len(s) > maxName || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// clip shortens a text to n bytes.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
