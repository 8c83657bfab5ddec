package isolate

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jailrun/jail/ipc"
)

// IPC is one thing that a broker of the caller's may do for the payload. Compile looks at it and an Explanation tells it;
// to serve it is the caller's part: see package ipc, and IPCRules.
type IPC struct {
	Service  IPCService `json:"service"`
	Name     string     `json:"name,omitempty"`     // how the payload calls it
	Path     string     `json:"path,omitempty"`     // of a file: on the host
	Access   ipc.Access `json:"access,omitempty"`   // of a file or memory
	Size     int64      `json:"size,omitempty"`     // of memory and of a channel's messages, in bytes
	Capacity int        `json:"capacity,omitempty"` // of a channel, in messages; 0 is a rendezvous
	User     bool       `json:"user,omitempty"`     // shared with jails of this user that other launchers started
}

// IPCService is what is done.
type IPCService string

// The services.
const (
	IPCFile     IPCService = "file"     // open it
	IPCLock     IPCService = "lock"     // take it
	IPCMemory   IPCService = "memory"   // get it, make it if nobody has
	IPCChannel  IPCService = "channel"  // the same
	IPCLog      IPCService = "log"      // pass lines on
	IPCProgress IPCService = "progress" // pass on how far it is
)

// ipcForms are the ways to write a service down.
const ipcForms = "file:NAME=PATH[:read|write|create], lock:NAME, memory:NAME:SIZE[:read|write|own][:user], channel:NAME:SIZE:CAPACITY[:user], log or progress"

// ParseIPC reads one of:
//
//	file:NAME=PATH[:read|write|create]
//	lock:NAME
//	memory:NAME:SIZE[:read|write|own][:user]
//	channel:NAME:SIZE:CAPACITY[:user]
//	log
//	progress
//
// A file is read, and memory written, unless said otherwise.
func ParseIPC(s string) (IPC, error) {
	parts := strings.Split(s, ":")
	take := func() (part string) {
		if len(parts) > 0 {
			part, parts = parts[0], parts[1:]
		}
		return part
	}
	access := func(byDefault ipc.Access, list ...ipc.Access) ipc.Access {
		if len(parts) > 0 && slices.Contains(list, ipc.Access(parts[0])) {
			return ipc.Access(take())
		}
		return byDefault
	}
	wrong := func(problem string) (IPC, error) { return IPC{}, &SpecError{Field: "ipc", Value: s, Problem: problem} }
	r := IPC{Service: IPCService(take())}
	var err error
	switch r.Service {
	case IPCFile:
		rest := strings.Join(parts, ":")
		r.Access = ipc.MayRead
		for _, a := range []ipc.Access{ipc.MayRead, ipc.MayWrite, ipc.MayCreate} {
			if path, ok := strings.CutSuffix(rest, ":"+string(a)); ok {
				rest, r.Access = path, a
			}
		}
		r.Name, r.Path, _ = strings.Cut(rest, "=")
		if !filepath.IsAbs(r.Path) || filepath.Clean(r.Path) != r.Path {
			return wrong("has no absolute path without dots")
		}
		parts = nil
	case IPCLock:
		r.Name = take()
	case IPCMemory:
		r.Name = take()
		r.Size, err = ParseSize(take())
		r.Access = access(ipc.MayWrite, ipc.MayRead, ipc.MayWrite, ipc.MayOwn)
	case IPCChannel:
		r.Name = take()
		r.Size, err = ParseSize(take())
		capacity := take()
		if err == nil {
			r.Capacity, err = strconv.Atoi(capacity)
		}
	case IPCLog, IPCProgress:
	default:
		return wrong("is not " + ipcForms)
	}
	if (r.Service == IPCMemory || r.Service == IPCChannel) && slices.Equal(parts, []string{"user"}) {
		r.User = true
		take()
	}
	if err != nil || len(parts) > 0 {
		return wrong("is not " + ipcForms)
	}
	_, err = IPCRules([]IPC{r})
	return r, err
}

func (r IPC) String() string {
	s := string(r.Service)
	switch r.Service {
	case IPCFile:
		return s + ":" + r.Name + "=" + r.Path + ":" + string(r.Access)
	case IPCLock:
		return s + ":" + r.Name
	case IPCMemory:
		s += ":" + r.Name + ":" + strconv.FormatInt(r.Size, 10) + ":" + string(r.Access)
	case IPCChannel:
		s += ":" + r.Name + ":" + strconv.FormatInt(r.Size, 10) + ":" + strconv.Itoa(r.Capacity)
	case IPCLog, IPCProgress:
	}
	if r.User {
		s += ":user"
	}
	return s
}

// IPCRules is what a broker has to know. A SpecError says what is wrong with one service, or with several together.
func IPCRules(list []IPC) (ipc.Rules, error) {
	var rules ipc.Rules
	for i, r := range list {
		if slices.Contains(list[:i], r) { // a policy and a flag may say the same
			continue
		}
		switch r.Service {
		case IPCFile:
			rules.Files = append(rules.Files, ipc.FileRule{Name: r.Name, Path: r.Path, Access: r.Access})
		case IPCLock:
			rules.Locks = append(rules.Locks, r.Name)
		case IPCMemory:
			rules.Memory = append(rules.Memory, ipc.MemoryRule{Name: r.Name, Size: r.Size, Access: r.Access, User: r.User})
		case IPCChannel:
			rules.Channels = append(rules.Channels, ipc.ChannelRule{Name: r.Name, Element: int(r.Size), Capacity: r.Capacity, User: r.User})
		case IPCLog:
			rules.Log = true
		case IPCProgress:
			rules.Progress = true
		default:
			return rules, &SpecError{Field: "ipc", Value: string(r.Service), Problem: "is not a service: " + ipcForms}
		}
	}
	if err := rules.Check(); err != nil {
		return rules, &SpecError{Field: "ipc", Value: list[len(list)-1].String(), Problem: "can't be allowed: " + strings.TrimPrefix(err.Error(), "ipc rules: ")}
	}
	return rules, nil
}
