package seccomp

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
)

// A CallRule gives one action to some calls. Unlike a [Rule] it may name groups, its calls are those of every ABI, and
// rules may contradict each other: for each call the most specific one counts.
//
//   - A rule with conditions is more specific than one without, a call's name more than its group, a group more than
//     [AllCalls].
//   - Among equals the strictest counts, in the order of the kernel: kill the process, kill the thread, trap, errno, log,
//     allow; and of two errnos the later.
//
// What no rule is about is allowed: the filter comes besides others.
type CallRule struct {
	Action Action
	Calls  []string // names, and groups as "@mount"
	Conds  []Cond   // must all hold; with them only names can be given
}

// AllCalls is the group of all calls, those that this package does not know too.
const AllCalls = "@all"

// A Group of calls by purpose.
type Group struct {
	Name string // with its @
	Doc  string
}

// Groups lists the groups but for [AllCalls]. Each call is in one.
func Groups() []Group {
	var list []Group
	for _, g := range syscalls.Groups {
		list = append(list, Group(g))
	}
	return list
}

// Calls lists the names of a group's calls, "" is all.
func Calls(group string) []string {
	var names []string
	for _, c := range syscalls.Calls {
		if group == "" || syscalls.Groups[c.Group].Name == group {
			names = append(names, c.Name)
		}
	}
	return names
}

// An UnknownCallError is about a name that is no call and no group.
type UnknownCallError struct{ Name string }

func (e *UnknownCallError) Error() string {
	if strings.HasPrefix(e.Name, "@") {
		return strconv.Quote(e.Name) + " is no group of system calls"
	}
	return strconv.Quote(e.Name) + " is no system call"
}

// CheckCall says whether there is a call, or a group, of that name.
func CheckCall(name string) error {
	if name == AllCalls || syscalls.Find(name) != nil || slices.ContainsFunc(syscalls.Groups[:], func(g syscalls.Group) bool { return g.Name == name }) {
		return nil
	}
	return &UnknownCallError{name}
}

// ParseCond reads a condition: "arg0 == 16", "arg1 != 0x5412", "arg2 & 0xff == 3", and <, <=, >, >=.
func ParseCond(text string) (Cond, error) {
	words := strings.Fields(text)
	for _, op := range []string{"==", "!=", "<=", ">=", "<", ">"} { // blanks may be left out
		if len(words) == 1 && strings.Contains(text, op) {
			left, right, _ := strings.Cut(text, op)
			words = append(strings.Fields(strings.Replace(left, "&", " & ", 1)), op, right)
			break
		}
	}
	masked := len(words) == 5 && words[1] == "&"
	if len(words) != 3 && !masked {
		return Cond{}, errors.New(`is no condition, as "arg0 == 16" or "arg1 & 0xff != 3"`)
	}
	number, ok := strings.CutPrefix(words[0], "arg")
	if !ok || len(number) != 1 || number[0] < '0' || number[0] > '5' {
		return Cond{}, fmt.Errorf("begins with %q; a call's arguments are arg0 to arg5", words[0])
	}
	c := Cond{Arg: uint(number[0] - '0')}
	op := words[len(words)-2]
	switch {
	case masked && op == "==":
		c.Op = MaskedEqual
	case masked && op == "!=":
		c.Op = MaskedNotEqual
	case masked:
		return Cond{}, fmt.Errorf("has %q behind a mask; == and != go with one", op)
	default:
		c.Op = map[string]Op{"==": Equal, "!=": NotEqual, "<": Less, "<=": LessEqual, ">": Greater, ">=": GreaterEqual}[op]
	}
	if c.Op == 0 {
		return Cond{}, fmt.Errorf("has %q where one of == != < <= > >= has to be", op)
	}
	var err error
	if c.Value, err = parseValue(words[len(words)-1]); err != nil {
		return Cond{}, err
	}
	if masked {
		if c.Mask, err = parseValue(words[2]); err != nil {
			return Cond{}, err
		}
		if c.Value&^c.Mask != 0 {
			return Cond{}, errors.New("has a value with bits outside of its mask")
		}
	}
	return c, nil
}

// parseValue reads 16 and 0x10. What begins with another 0 is octal to some.
func parseValue(text string) (uint64, error) {
	digits, base := text, 10
	if hex, ok := strings.CutPrefix(text, "0x"); ok {
		digits, base = hex, 16
	}
	v, err := strconv.ParseUint(digits, base, 64)
	if err != nil || base == 10 && len(text) > 1 && text[0] == '0' || strings.HasPrefix(digits, "+") {
		return 0, fmt.Errorf("has %q where a number has to be, as 16 or 0x10", text)
	}
	return v, nil
}

// ParseErrno reads "ENOSYS" or a number from 0 to 4095. With 0 the call does nothing and succeeds.
func ParseErrno(text string) (Action, error) {
	if n, err := strconv.ParseUint(text, 10, 16); err == nil && n <= 4095 && strconv.FormatUint(n, 10) == text {
		return Errno(unix.Errno(n)), nil
	}
	for n := unix.Errno(1); n < 256; n++ {
		if text != "" && unix.ErrnoName(n) == text {
			return Errno(n), nil
		}
	}
	return 0, errors.New("is no errno, as ENOSYS or a number to 4095")
}

// A Verdict is what rules give to a call whose arguments fulfil conditions.
type Verdict struct {
	Action Action
	Conds  []Cond
	Rule   int // an index of the rules; -1 is none

	lax bool // without its conditions something stricter would count
}

// Decide returns what rules do with a call: the first verdict whose conditions hold counts, and the last one has none.
func Decide(rules []CallRule, name string) ([]Verdict, error) {
	c := syscalls.Find(name)
	if c == nil {
		return nil, &UnknownCallError{name}
	}
	return decide(rules, rulesByWord(rules), c), nil
}

// rulesByWord are the indices of the rules for a name or a group.
func rulesByWord(rules []CallRule) map[string][]int {
	by := map[string][]int{}
	for i, r := range rules {
		for _, word := range r.Calls {
			by[word] = append(by[word], i)
		}
	}
	return by
}

// words are what rules may call a call, the least specific first; nil is one without a name.
func words(c *syscalls.Call) [3]string {
	if c == nil {
		return [3]string{AllCalls}
	}
	return [3]string{AllCalls, syscalls.Groups[c.Group].Name, c.Name}
}

func decide(rules []CallRule, by map[string][]int, c *syscalls.Call) []Verdict {
	var list []Verdict
	last := Verdict{Action: Allow, Rule: -1}
	for _, word := range words(c) {
		first := true
		for _, i := range by[word] {
			switch r := rules[i]; {
			case len(r.Conds) > 0:
				list = append(list, Verdict{Action: r.Action, Conds: r.Conds, Rule: i})
			case first || !stricter(last.Action, r.Action):
				last, first = Verdict{Action: r.Action, Rule: i}, false
			}
		}
	}
	for i := range list {
		list[i].lax = stricter(last.Action, list[i].Action)
	}
	slices.Reverse(list) // of two errnos the later counts
	slices.SortStableFunc(list, func(a, b Verdict) int { return cmp.Compare(a.Action.rank(), b.Action.rank()) })
	return append(list, last)
}

// rank orders actions as the kernel does: the strictest first.
func (a Action) rank() int32 { return int32(a &^ unix.SECCOMP_RET_DATA) }

func stricter(a, b Action) bool { return a.rank() < b.rank() }

// A RuleError is about one of the rules.
type RuleError struct {
	Rule    int
	Problem string
}

func (e *RuleError) Error() string { return fmt.Sprintf("rule %d %s", e.Rule, e.Problem) }

// checkRules finds what a person can't have meant.
func checkRules(rules []CallRule, by map[string][]int) error {
	for i, r := range rules {
		for _, name := range r.Calls {
			if err := CheckCall(name); err != nil {
				return &RuleError{i, err.Error()}
			}
			if len(r.Conds) > 0 && name[0] == '@' {
				return &RuleError{i, "has conditions, and the calls of a group have different arguments: name the calls"}
			}
		}
		if len(r.Conds) > maxConds {
			return &RuleError{i, fmt.Sprintf("has more than %d conditions", maxConds)}
		}
	}
	refused := func(c *syscalls.Call) bool { // by some rule
		list := words(c)
		return slices.ContainsFunc(list[:], func(word string) bool {
			return slices.ContainsFunc(by[word], func(i int) bool { return rules[i].Action != Allow })
		})
	}
	for i, r := range rules {
		says := r.Action != Allow
		for _, word := range r.Calls {
			if says {
				break
			}
			if word[0] != '@' {
				says = refused(syscalls.Find(word))
				continue
			}
			says = slices.ContainsFunc(syscalls.Calls[:], func(c syscalls.Call) bool {
				return (word == AllCalls || word == syscalls.Groups[c.Group].Name) && refused(&c)
			})
		}
		if !says {
			return &RuleError{i, "says nothing: what no rule refuses is allowed; to refuse all other calls, deny " + AllCalls}
		}
	}
	return nil
}

// String is a condition as ParseCond reads it.
func (c Cond) String() string {
	op := map[Op]string{
		Equal: "==", NotEqual: "!=", Less: "<", LessEqual: "<=", Greater: ">", GreaterEqual: ">=", MaskedEqual: "==", MaskedNotEqual: "!=",
	}[c.Op]
	if c.Op >= MaskedEqual {
		return fmt.Sprintf("arg%d & %#x %s %#x", c.Arg, c.Mask, op, c.Value)
	}
	return fmt.Sprintf("arg%d %s %d", c.Arg, op, c.Value)
}
