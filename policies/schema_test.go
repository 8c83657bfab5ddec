package policies

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/jailrun/jail/isolate"
)

var update = flag.Bool("update", false, "write policy.schema.json and the reference in docs/policies.md anew")

// TestSchema holds the committed schema to be the one of Policy.
func TestSchema(t *testing.T) {
	want := generateSchema(t)
	if *update {
		if err := os.WriteFile("policy.schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		Schema = string(want)
	}
	if Schema != string(want) {
		t.Errorf("policy.schema.json is not what Policy gives: run go generate ./policies")
	}
}

func generateSchema(t *testing.T) []byte {
	t.Helper()
	one := func(pattern string) *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Pattern: pattern} }
	number := &jsonschema.Schema{Type: "integer"}
	either := func(s ...*jsonschema.Schema) *jsonschema.Schema { return &jsonschema.Schema{AnyOf: s} }
	words := func(list ...any) *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Enum: list} }
	var levels, rlimits []any
	for _, l := range isolate.Levels() {
		levels = append(levels, l.String())
	}
	for _, name := range isolate.RlimitNames() {
		rlimits = append(rlimits, name)
	}
	const size = `[0-9]+[KMGkmg]?`
	kinds := map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[Version]():     {Type: "integer", Enum: []any{1}},
		reflect.TypeFor[Name]():        one(`.`),
		reflect.TypeFor[Word]():        either(one(`.`), &jsonschema.Schema{Type: "number"}),
		reflect.TypeFor[Path]():        one(`.`),
		reflect.TypeFor[PathOrWord]():  one(`.`),
		reflect.TypeFor[Switch]():      {Type: "boolean"},
		reflect.TypeFor[Level]():       words(levels...),
		reflect.TypeFor[Network]():     words("none", "host"),
		reflect.TypeFor[Proc]():        words("own", "outer"),
		reflect.TypeFor[Variable]():    one(`^[^=]`),
		reflect.TypeFor[Capability]():  one(`^[A-Za-z_]+$`),
		reflect.TypeFor[Rlimit]():      either(number, one(`^(`+size+`|unlimited)(:(`+size+`|unlimited))?$`)),
		reflect.TypeFor[Time]():        either(&jsonschema.Schema{Type: "integer", Enum: []any{0}}, one(`^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`)),
		reflect.TypeFor[Size]():        either(number, one(`^`+size+`$`)),
		reflect.TypeFor[Count]():       number,
		reflect.TypeFor[OutputLimit](): either(number, one(`^`+size+`(:(kill|truncate|block))?$`)),
		reflect.TypeFor[IfAbsent]():    words("report"),
		reflect.TypeFor[Call]():        {Ref: "#/$defs/call"},
		reflect.TypeFor[Errno]():       either(number, one(`^E[A-Z0-9]+$`)),
		reflect.TypeFor[Condition]():   one(`^arg[0-5] *(& *(0x[0-9A-Fa-f]+|[0-9]+) *)?(==|!=|<=?|>=?) *(0x[0-9A-Fa-f]+|[0-9]+)$`),
		reflect.TypeFor[Notify]():      one(`^(open|connect):.`),
		reflect.TypeFor[IPC]():         one(`^((file|lock|memory|channel):.|(log|progress)$)`),
	}
	var r jsonschema.Reflector
	r = jsonschema.Reflector{
		Anonymous: true, DoNotReference: true,
		Mapper: func(t reflect.Type) *jsonschema.Schema {
			if s, ok := kinds[t]; ok {
				kind := *s
				return &kind
			}
			switch {
			case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Struct:
				unique, least := true, uint64(1)
				item := r.Mapper(t.Elem())
				return either(item, &jsonschema.Schema{Type: "array", Items: item, MinItems: &least, UniqueItems: unique})
			case t.Kind() == reflect.Map:
				return &jsonschema.Schema{
					Type: "object", PropertyNames: &jsonschema.Schema{Enum: rlimits}, AdditionalProperties: kinds[t.Elem()],
				}
			}
			return nil
		},
	}
	s := r.Reflect(&Policy{})
	s.Title = "A policy of jail"
	permissions, _ := s.Properties.Get("permissions")
	files, _ := permissions.Properties.Get("files")
	for _, a := range fileActions {
		files.Items.OneOf = append(files.Items.OneOf, &jsonschema.Schema{Required: []string{a.key}})
	}
	syscalls, _ := permissions.Properties.Get("syscalls")
	for _, a := range syscallActions {
		syscalls.Items.OneOf = append(syscalls.Items.OneOf, &jsonschema.Schema{Required: []string{a.key}})
	}
	s.Definitions = jsonschema.Definitions{"call": words(callNames(t)...)}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

// callNames are the groups and the calls.
func callNames(t *testing.T) []any {
	t.Helper()
	text, err := os.ReadFile("../seccomp/groups.txt")
	if err != nil {
		t.Fatal(err)
	}
	groups, names := []string{"@all"}, []string{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "@") {
			name, _, _ := strings.Cut(line, ":")
			groups = append(groups, name)
		} else if strings.HasPrefix(line, "\t") {
			names = append(names, strings.Fields(line)...)
		}
	}
	slices.Sort(names)
	var list []any
	for _, name := range append(groups, names...) {
		list = append(list, name)
	}
	return list
}

// validate checks a policy as an editor does.
func validate(t *testing.T, text []byte) error {
	t.Helper()
	doc, err := validator.UnmarshalJSON(strings.NewReader(Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource("policy.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	v, err := validator.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// examples are all policies that the project shows to people: built-in, in a folder of examples, or in a document.
func examples(t *testing.T) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	for _, name := range Builtin() {
		text, err := Text(name)
		if err != nil {
			t.Fatal(err)
		}
		found["built-in "+name] = []byte(text)
	}
	files, err := filepath.Glob("../examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if found[file], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"../README.md", "../docs/policies.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```").FindAllSubmatch(text, -1) {
			found[file+" "+string(rune('a'+i))] = block[1]
		}
	}
	return found
}

// TestExamples: each is what the schema and the reader take.
func TestExamples(t *testing.T) {
	t.Setenv("HOME", "/home/a")
	for name, text := range examples(t) {
		if err := validate(t, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		root, err := parse(name, text)
		if err == nil {
			err = (&reader{loader: &loader{home: "/home/a"}, dir: "/home/a/project"}).document(root)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSchemaRefuses: the schema tells wrong from right.
func TestSchemaRefuses(t *testing.T) {
	for _, bad := range []string{
		"extends: agent", "version: 2", "version: 1\nborder: {}", "version: 1\nborders: {memroy: 1G}", "version: 1\nborders: {memory: 1Q}",
		"version: 1\nborders: {level: high}", "version: 1\nborders: {timeout: 10}", "version: 1\npermissions: {network: bridge}",
		"version: 1\npermissions: {files: [./x]}", "version: 1\npermissions: {files: [{read: ./x, write: ./x}]}",
		"version: 1\npermissions: {files: [{optional: true}]}", "version: 1\npermissions: {files: [{raed: ./x}]}",
		"version: 1\npermissions: {files: [{deny: ./x, if-absent: ignore}]}", "version: 1\nborders: {rlimit: {nofiles: 1}}",
		"version: 1\npermissions: {env-all: 1}", "version: 1\nmonitor: {denied: 1}", "version: 1\npermissions: {env: []}",
		"version: 1\npermissions: {syscalls: [ptrace]}", "version: 1\npermissions: {syscalls: [{deny: ptrce}]}", "version: 1\npermissions: {syscalls: [{kill: ptrace}]}",
		"version: 1\npermissions: {syscalls: [{deny: ptrace, log: kcmp}]}", "version: 1\npermissions: {syscalls: [{deny: \"@mounts\"}]}",
		"version: 1\npermissions: {syscalls: [{deny: ptrace, errno: eperm}]}", "version: 1\npermissions: {syscalls: [{deny: socket, when: arg6 == 1}]}",
		"version: 1\npermissions: {syscalls: [{when: arg0 == 1}]}", "version: 1\npermissions: {seccomp-log: 1}",
	} {
		if validate(t, []byte(bad)) == nil {
			t.Errorf("taken: %s", bad)
		}
	}
	good := "version: 1\nborders: {memory: 1G, timeout: 1h30m, rlimit: {nofile: \"64:128\", core: 0}, cpus: 0.5}\npermissions: {env: LANG, files: [{read: [./a, ./b], optional: true}], " +
		"syscalls: [{deny: [\"@mount\", ptrace], errno: 38, when: [arg0==1, arg1 & 0xff != 3]}, {allow: \"@all\"}, {kill-process: mseal, when: arg5 >= 7}], seccomp-log: true}"
	if err := validate(t, []byte(good)); err != nil {
		t.Error(err)
	}
}

// TestReference holds the list of keys in docs/policies.md to be that of the types.
func TestReference(t *testing.T) {
	const file, mark = "../docs/policies.md", "<!-- made from the Go types: go generate ./policies -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, tail, found := strings.Cut(string(text), mark)
	var b strings.Builder
	section := ""
	for _, k := range Keys() {
		if k.Section != section {
			section = k.Section
			b.WriteString("\n### " + section + "\n\n| key | value | what it is |\n|---|---|---|\n")
		}
		b.WriteString("| `" + k.Name + "` | " + valueOf(k) + " | " + strings.ReplaceAll(k.Doc, "|", "\\|") + " |\n")
	}
	if *update {
		if err := os.WriteFile(file, []byte(head+mark+b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !found || tail != b.String() {
		t.Errorf("%s has not the keys that there are: run go generate ./policies", file)
	}
}

// valueOf is what a key's value is called.
func valueOf(k Key) string {
	switch k.kind.Kind() {
	case reflect.Slice:
		if k.kind.Elem().Kind() == reflect.Struct {
			return "list of rules, see permissions." + k.Name
		}
		return strings.ToLower(k.kind.Elem().Name()) + ", or a list"
	case reflect.Map:
		return "mapping"
	}
	return map[string]string{
		"PathOrWord": "word or path", "Switch": "true or false", "OutputLimit": "size[:action]", "IfAbsent": "report",
		"Network": "none or host", "Proc": "own or outer", "Level": "a level", "Time": "a time, as 300ms or 10m", "Size": "a size, as 64M",
	}[k.kind.Name()] + map[bool]string{true: strings.ToLower(k.kind.Name())}[slices.Contains([]string{"Word", "Path", "Count", "Errno"}, k.kind.Name())]
}
