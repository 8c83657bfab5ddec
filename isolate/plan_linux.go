//go:build cgo && (amd64 || arm64)

package isolate

import (
	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// encode lays the Plan out for jail-init. A run of launcher steps becomes a barrier, but for those before all others. try
// ends the payload's side before its exec.
func (p *Plan) encode(npass int, try bool, failStep, failErrno uint32) []byte {
	e := jailinit.NewEncoder()
	init, payload, aside := make([]jailinit.Step, 0, len(p.Steps)), make([]jailinit.Step, 0, 24), make([]jailinit.Step, 0, 16)
	waiting := true // what the launcher does first of all is done before the clone
	for i, s := range p.Steps {
		w := jailinit.Step{Op: s.wire.op, Flags: s.wire.flags, Index: uint32(i), Keep: s.wire.keep, A: s.wire.a, B: s.wire.b, C: s.wire.c, D: s.wire.d, E: s.wire.e}
		path := s.Path
		if s.wire.path != "" {
			path = s.wire.path
		}
		switch s.wire.op {
		case 0: // the launcher's
			if !waiting {
				init = append(init, jailinit.Step{Op: jailinit.OpBarrier, Index: uint32(i)})
			}
			waiting = true
			continue
		case jailinit.OpMount:
			w.S1, w.S2, w.S3, w.S4 = e.String(s.Source), e.String(s.Path), e.String(s.Type), e.String(s.Data)
		case jailinit.OpRoot, jailinit.OpFS:
			w.S1, w.S2, w.S3 = e.String(s.Type), e.String(path), e.Strings(s.List)
		case jailinit.OpAttach:
			w.S2 = e.String(path)
		case jailinit.OpMask:
			w.S1, w.S2, w.S3 = e.String(path), e.String(s.Source), e.String(s.Type)
		case jailinit.OpPivot:
			w.S1, w.S2 = e.String(s.Path), e.String("/")
		case jailinit.OpBind:
			w.S1, w.S2 = e.String(s.Source), e.String(path)
		case jailinit.OpAside:
			w.B = uint64(len(aside)) // its steps follow
		case jailinit.OpFile:
			w.S1 = e.String(path)
			if try { // the content is for the run, and who gives it may not come to its end
				w.D = 0
			}
		case jailinit.OpFilter, jailinit.OpMonitor:
			w.S1 = e.Bytes(s.wire.bytes)
		case jailinit.OpExec:
			if try {
				w.Op = jailinit.OpTry
			}
			w.S1, w.S2, w.S3 = e.Strings(s.List), e.Strings(s.Args), e.Strings(s.Env)
		default:
			w.S1, w.S2 = e.String(path), e.String(s.Data)
		}
		waiting = false
		switch s.Side {
		case SidePayload:
			payload = append(payload, w)
		case SideAside:
			aside = append(aside, w)
		default:
			init = append(init, w)
		}
	}
	var flags uint32
	if p.pidNS {
		flags |= jailinit.PlanPIDNS
	}
	if p.keepKill {
		flags |= jailinit.PlanKeepKill
	}
	return e.Finish(init, payload, aside, flags, uint32(npass), failStep, failErrno)
}

// stepError tells which step failed; an index that names none is a failure between the steps.
func (p *Plan) stepError(index int, errno error) *StepError {
	if index < 0 || index >= len(p.Steps) {
		return &StepError{Index: -1, Side: SideInit, Op: "jail-init", Object: "between its steps", Errno: errnoOf(errno)}
	}
	s := p.Steps[index]
	return &StepError{Index: index, Side: s.Side, Op: s.Op, Object: s.object(), Errno: errnoOf(errno)}
}
