//go:build cgo && (amd64 || arm64)

package isolate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// identity decides who the payload is, and whether a user namespace is needed for the other namespaces.
func (c *compiler) identity() error {
	s, h := c.spec, c.host
	c.userNS = len(s.Linux.Namespaces) > 0 && !h.privileged()
	c.uid, c.gid = h.UID, h.GID
	confined := !s.KeepCapabilities
	who := s.identity()
	c.asOwn = c.userNS && h.OwnUID != 0
	if c.userNS && h.UID == 0 && !h.GuestUID && (!c.asOwn || who == IdentityCaller) {
		// The host's root, mapped into a user namespace, still owns /proc/sys: no isolation at all.
		if h.NoOwnUID || h.Caps&otherUIDCaps != otherUIDCaps {
			return h.noOtherUID(s.Level)
		}
		return &UnsupportedError{Level: s.Level, Missing: "root here lacks " + h.lacking(rootCaps)}
	}
	c.inUID, c.inGID = c.uid, c.gid
	switch who {
	case IdentityOwn:
		if h.UID == 0 {
			switch {
			case h.OwnUID != 0:
				c.uid, c.gid = h.OwnUID, h.OwnUID
			case h.GuestUID: // as an ordinary user, who stays who it is
			default:
				return h.noOtherUID(s.Level)
			}
		}
		c.inUID, c.inGID = c.uid, c.gid
		if s.Root != nil && s.mapsUsers() { // who owns the files of most root file systems
			c.inUID, c.inGID = 0, 0
		}
	case IdentityFixed:
		c.uid, c.gid = int(s.Process.User.UID), int(s.Process.User.GID)
		c.inUID, c.inGID = c.uid, c.gid
		user := fmt.Sprintf("%d:%d", c.uid, c.gid)
		switch {
		case c.userNS: // any id will do inside; outside it stays the caller's
		case s.mapsUsers() && h.UID != 0:
			c.uid, c.gid = h.UID, h.GID
		case s.mapsUsers() && h.OwnUID != 0:
			c.uid, c.gid = h.OwnUID, h.OwnUID
		case c.uid == h.UID && c.gid == h.GID && c.uid != 0:
		case c.uid == 0 && confined:
			return &SpecError{Field: "user", Value: user, Problem: "is the host's root, who owns /proc/sys and much else; --user caller keeps the uid without its capabilities"}
		case !h.capable(unix.CAP_SETUID) || !h.capable(unix.CAP_SETGID):
			return &SpecError{Field: "user", Value: user, Problem: "is not you, and only root may take another uid outside a user namespace (level namespaced makes one)"}
		}
	}
	if c.userNS {
		c.uid, c.gid = c.inUID, c.inGID
	}
	c.mapped = !c.userNS && s.mapsUsers()
	c.plan.Identity, c.plan.UID, c.plan.GID = who, c.uid, c.gid
	switch {
	case c.asOwn:
		c.plan.UID, c.plan.GID = h.OwnUID, h.OwnUID
	case c.userNS:
		c.plan.UID, c.plan.GID = h.UID, h.GID
	}
	c.plan.insideUID, c.plan.insideGID = c.inUID, c.inGID
	c.plan.keepKill = !c.userNS && c.uid != h.UID
	c.mapsIDs = c.plan.keepKill || c.asOwn
	if h.UID != 0 || h.GuestUID || c.plan.UID != h.UID || who == IdentityCaller && confined {
		c.give(OtherIdentity) // for an ordinary user, and for who asked for it, its own is what is promised
	}
	return nil
}

// capabilities decides which the payload keeps.
func (c *compiler) capabilities() error {
	s, h := c.spec, c.host
	drop, err := parseCapabilities("cap-drop", s.CapDrop)
	if err != nil {
		return err
	}
	extra, err := parseCapabilities("cap-add", s.CapAdd)
	if err != nil {
		return err
	}
	held, bounding := h.Caps, h.Bounding
	if c.userNS || c.mapped {
		held, bounding = allCapabilities, allCapabilities
	}
	var keep uint64
	if s.KeepCapabilities && c.uid == h.UID {
		keep = h.Caps
	}
	all := slices.ContainsFunc(s.CapAdd, func(n string) bool { return strings.EqualFold(strings.TrimPrefix(n, "CAP_"), "all") })
	if all {
		extra &= bounding & held
	}
	if lack := extra &^ bounding; lack != 0 {
		return &SpecError{Field: "cap-add", Value: strings.Join(formatCapabilities(lack), " "), Problem: "is outside the bounding set of this host"}
	}
	if lack := extra &^ held; lack != 0 {
		return &SpecError{Field: "cap-add", Value: strings.Join(formatCapabilities(lack), " "), Problem: "is not yours to give"}
	}
	c.keep = (keep | extra) &^ drop
	// What was asked for is ambient as well: no other set survives the exec of a uid that is not 0.
	if c.inUID != 0 {
		c.ambient = extra &^ drop
	}
	if s.KeepCapabilities {
		c.bounding = allCapabilities &^ drop
	} else {
		c.bounding = c.keep
	}
	if c.keep == 0 && c.bounding == 0 && slices.Contains(s.Promised, NoCapabilities) {
		c.give(NoCapabilities)
	}
	return nil
}

// credentialSteps are bounding set, groups, ids, capabilities. The bounding set first, while CAP_SETPCAP is held; then
// the groups and the gid, while CAP_SETGID is; then the uid. Into a user namespace of the payload's own it goes with that
// uid, which made it; all sets are full behind its door, and so are emptied there.
func (c *compiler) credentialSteps() {
	s, h := c.spec, c.host
	dropBounding := c.bounding != allCapabilities && (c.userNS || h.capable(unix.CAP_SETPCAP))
	bounding := Step{Op: "drop from bounding set", List: []string{"all but", describeCaps(c.bounding)}, wire: wire{op: jailinit.OpBounding, a: c.bounding}}
	if dropBounding && !c.mapped {
		c.add(SidePayload, bounding)
	}
	if !c.userNS && (c.uid != h.UID || c.gid != h.GID || !s.KeepCapabilities && h.UID == 0 && !h.GuestUID) {
		c.take(SidePayload)
	}
	if c.mapped {
		c.add(SidePayload, Step{Op: "setns", Data: "user namespace", wire: wire{op: jailinit.OpSetns, a: uint64(c.payloadUserNS)}})
		if dropBounding {
			c.add(SidePayload, bounding)
		}
	}
	c.add(SidePayload, Step{Op: "capset", List: []string{describeCaps(c.keep)}, wire: wire{op: jailinit.OpCaps, a: c.keep, b: c.ambient}})
}

// take makes a process the payload's user.
func (c *compiler) take(side Side) {
	c.add(side, Step{Op: "setgroups", List: []string{"none"}, wire: wire{op: jailinit.OpGroups}})
	c.add(side, Step{Op: "setresgid", Data: strconv.Itoa(c.gid), wire: wire{op: jailinit.OpGID, a: uint64(c.gid)}})
	c.add(side, Step{Op: "setresuid", Data: strconv.Itoa(c.uid), wire: wire{op: jailinit.OpUID, a: uint64(c.uid)}})
}

// noOtherUID says why root's payload can't have a uid of its own.
func (h *Host) noOtherUID(level Level) error {
	e := &UnsupportedError{Level: level, Missing: "another uid for the payload: root here lacks " + h.lacking(otherUIDCaps)}
	e.Cause = Cause{LayerCapabilities, "", "the outer sandbox has to leave root " + h.lacking(otherUIDCaps) + ", or to run jail as another user"}
	if h.Caps&otherUIDCaps == otherUIDCaps {
		e.Missing = "another uid for the payload: this user namespace has none of those that jails take"
		e.Cause = Cause{LayerUserNamespace, "", "whoever made it has to run jail as another user, or without a user namespace"}
	}
	return e
}

func describeCaps(set uint64) string {
	switch names := formatCapabilities(set); {
	case set == 0:
		return "none"
	case len(names) == len(capabilityNames):
		return "ALL"
	default:
		return strings.Join(names, " ")
	}
}
