package main

import (
	"bytes"
	"encoding/json"
	goflag "flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/jailrun/jail/isolate"
)

var update = goflag.Bool("update", false, "write result.schema.json anew")

// TestResultSchema holds the committed schema to be the one of isolate.Result.
func TestResultSchema(t *testing.T) {
	want := generateSchema(t)
	if *update {
		if err := os.WriteFile("result.schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("result.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("result.schema.json is not what isolate.Result gives: run go generate ./cmd/jail")
	}
}

func generateSchema(t *testing.T) []byte {
	levels := []any{"none"}
	for _, l := range isolate.Levels() {
		levels = append(levels, l.String())
	}
	enums := map[reflect.Type][]any{
		reflect.TypeFor[isolate.Level](): levels,
		reflect.TypeFor[isolate.Reason](): {
			isolate.Exited, isolate.Signalled, isolate.TimedOut, isolate.Cancelled, isolate.MemoryExceeded,
			isolate.CPUExceeded, isolate.OutputExceeded, isolate.ExecFailed, isolate.SetupFailed, isolate.SupervisorLost,
		},
		reflect.TypeFor[isolate.Why](): {
			isolate.ByFilter, isolate.ByNotify, isolate.NotInView, isolate.Closed, isolate.ReadOnly, isolate.NoExecution,
			isolate.ByMode, isolate.OtherProcess, isolate.NoNetwork,
		},
	}
	r := jsonschema.Reflector{
		Anonymous: true, DoNotReference: true,
		AllowAdditionalProperties: true, // keys are added from version to version
		Mapper: func(t reflect.Type) *jsonschema.Schema {
			if values, ok := enums[t]; ok {
				return &jsonschema.Schema{Type: "string", Enum: values}
			}
			return nil
		},
	}
	s := r.Reflect(&isolate.Result{})
	s.Title = "What jail run --json says about a run"
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

// validate checks one Result against the schema that the command prints.
func validate(result []byte) error {
	doc, err := validator.UnmarshalJSON(strings.NewReader(resultSchema))
	if err != nil {
		return err
	}
	c := validator.NewCompiler()
	if err := c.AddResource("result.json", doc); err != nil {
		return err
	}
	s, err := c.Compile("result.json")
	if err != nil {
		return err
	}
	v, err := validator.UnmarshalJSON(bytes.NewReader(result))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// The schema has to tell wrong from right.
func TestSchemaRefuses(t *testing.T) {
	good, err := json.Marshal(&isolate.Result{Reason: isolate.Exited, LostGuarantees: []isolate.Guarantee{}, LimitsHit: []string{}, Appeared: []string{}, Denied: []isolate.Denial{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(good); err != nil {
		t.Errorf("%s: %v", good, err)
	}
	for _, bad := range []string{
		`{}`, `[]`, `"exited"`,
		strings.Replace(string(good), `"exited"`, `"finished"`, 1),
		strings.Replace(string(good), `"none"`, `"high"`, 1),
		strings.Replace(string(good), `"limits_hit":[]`, `"limits_hit":null`, 1),
		strings.Replace(string(good), `"exit_code":0`, `"exit_code":"0"`, 1),
	} {
		if bad == string(good) {
			t.Fatal("nothing was replaced")
		}
		if validate([]byte(bad)) == nil {
			t.Errorf("accepted: %s", bad)
		}
	}
}
