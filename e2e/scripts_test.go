package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/lab"
)

// TestScriptsAndTests commissions a machine with a script of the user's, tests it with shipped tests and a failing one, and reads the
// results as clients do.
func TestScriptsAndTests(t *testing.T) {
	s := newSite(t, siteOptions{machines: 1})
	m := s.lab.Machines[0]
	id := s.enlist(m)
	ctx := t.Context()
	script := func(lines ...string) {
		t.Helper()
		text := "#!/bin/sh\n# --- Start MAAS 1.0 script metadata ---\n# " + strings.Join(lines, "\n# ") + "\n# --- End MAAS 1.0 script metadata ---\nexit 0\n"
		if _, err := s.client.NodeScriptsCreate(ctx, api.NodeScriptsCreateParams{Script: &api.File{Name: "script", Content: []byte(text)}}); err != nil {
			t.Fatal(err)
		}
	}
	script("name: rack-label", "script_type: commissioning", "packages: {apt: dmidecode}")
	script("name: burn", "script_type: testing", "hardware_type: cpu", "tags: mine", "parallel: any", "timeout: 60", "parameters: {secret: {type: password, default: hush}}")
	script("name: blink", "script_type: testing", "tags: mine")
	m.SetScript("rack-label", lab.ScriptOutcome{Output: "rack 7\n"})
	m.SetScript("smartctl-validate", lab.ScriptOutcome{Output: "healthy\n", Result: "status: passed\nresults: {}\n"})
	if _, err := s.client.MachineCommission(ctx, api.MachineCommissionParams{SystemID: id, CommissioningScripts: []string{"rack-label"}}); err != nil {
		t.Fatal(err)
	}
	x := s.reach(id, "Ready", 60*time.Second, "Commissioning", "Testing")
	if x.CommissioningStatusName != "Passed" || x.TestingStatusName != "Passed" || x.StorageTestStatusName != "Passed" {
		t.Errorf("after commissioning: %s, tests %s, storage %s", x.CommissioningStatusName, x.TestingStatusName, x.StorageTestStatusName)
	}
	read := func(set string, filters ...string) (api.ScriptSet, map[string]api.ScriptResult) {
		t.Helper()
		yes := true
		got, err := s.client.NodeScriptResultRead(ctx, api.NodeScriptResultReadParams{SystemID: id, ID: set, IncludeOutput: &yes, Filters: filters})
		if err != nil {
			t.Fatal(err)
		}
		byName := map[string]api.ScriptResult{}
		for _, r := range got.Results {
			byName[r.Name] = r
		}
		return got, byName
	}
	_, results := read("current-commissioning")
	if r := results["rack-label"]; r.StatusName != "Passed" || r.Stdout == nil || string(*r.Stdout) != "rack 7\n" {
		t.Errorf("rack-label: %+v", r)
	}
	_, results = read("current-testing")
	if r := results["smartctl-validate"]; r.StatusName != "Passed" || r.Parameters["storage"] == nil || string(*r.Output) != "healthy\n" || !strings.HasPrefix(string(*r.Result), "status: passed") {
		t.Errorf("smartctl-validate: %+v", r)
	}

	// A test that fails, one that runs out of time, shipped ones beside them, one of which wants the configured network.
	m.SetScript("burn", lab.ScriptOutcome{Exit: 124, Output: "getting warm\n", TimedOut: true})
	m.SetScript("blink", lab.ScriptOutcome{Exit: 3, Output: "the lamp is dead\n"})
	m.SetScript("memtester", lab.ScriptOutcome{Result: "status: degraded\n"})
	tested, err := s.client.MachineTest(ctx, api.MachineTestParams{SystemID: id, TestingScripts: []string{"mine", "memtester", "rack-controller-connectivity"}})
	if err != nil || tested.StatusName != "Testing" {
		t.Fatalf("%s: %v", state(tested), err)
	}
	x = s.reach(id, "Failed testing", 60*time.Second, "Testing")
	if x.TestingStatusName != "Failed" || x.CPUTestStatusName != "Failed" || x.MemoryTestStatusName != "Degraded" || x.NetworkTestStatusName != "Passed" || x.OtherTestStatusName != "Failed" {
		t.Errorf("tests %s, CPU %s, memory %s, network %s, other %s", x.TestingStatusName, x.CPUTestStatusName, x.MemoryTestStatusName, x.NetworkTestStatusName, x.OtherTestStatusName)
	}
	set, results := read("current-testing")
	for name, want := range map[string]string{"burn": "Timed out", "blink": "Failed", "memtester": "Degraded", "rack-controller-connectivity": "Passed"} {
		if results[name].StatusName != want {
			t.Errorf("%s: %s, want %s", name, results[name].StatusName, want)
		}
	}
	if r := results["burn"]; r.Parameters["secret"].(map[string]any)["value"] != "REDACTED" {
		t.Errorf("parameters: %v", r.Parameters)
	}
	if _, results := read("current-testing", "mine"); len(results) != 2 || results["blink"].ExitStatus == nil || *results["blink"].ExitStatus != 3 {
		t.Errorf("with the tag mine: %v", results)
	}
	text, err := s.client.NodeScriptResultDownload(ctx, api.NodeScriptResultDownloadParams{SystemID: id, ID: "current-testing", Filters: []string{"blink"}})
	if err != nil || !strings.Contains(string(text), "the lamp is dead") || strings.Contains(string(text), "warm") {
		t.Errorf("download: %q %v", text, err)
	}
	archive, err := s.client.NodeScriptResultDownload(ctx, api.NodeScriptResultDownloadParams{SystemID: id, ID: "current-testing", Filetype: ptr("tar.xz"), Output: ptr("all")})
	if err != nil || len(archive) < 6 || string(archive[:6]) != "\xfd7zXZ\x00" {
		t.Errorf("archive: %d bytes, %v", len(archive), err)
	}
	// What is suppressed does not count, and the history has both runs.
	if _, err := s.client.NodeScriptResultUpdate(ctx, api.NodeScriptResultUpdateParams{SystemID: id, ID: "current-testing", Suppressed: ptr(true), Filters: []string{"mine"}}); err != nil {
		t.Fatal(err)
	}
	if x := s.read(id); x.TestingStatusName != "Degraded" || x.CPUTestStatusName == "Failed" {
		t.Errorf("with the failures suppressed: %s, CPU %s", x.TestingStatusName, x.CPUTestStatusName)
	}
	sets, err := s.client.NodeScriptResultsList(ctx, api.NodeScriptResultsListParams{SystemID: id})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, x := range sets {
		kinds = append(kinds, x.TypeName)
	}
	if n := len(slices.DeleteFunc(slices.Clone(kinds), func(k string) bool { return k != "Testing" })); n < 2 || set.TypeName != "Testing" {
		t.Errorf("history: %v", kinds)
	}
	if _, err := s.client.MachineOverrideFailedTesting(ctx, api.MachineOverrideFailedTestingParams{SystemID: id}); err != nil {
		t.Fatal(err)
	}
	s.reach(id, "Ready", 30*time.Second)
	// Once more, and now all is well.
	m.SetScript("blink", lab.ScriptOutcome{})
	if _, err := s.client.MachineTest(ctx, api.MachineTestParams{SystemID: id, TestingScripts: []string{"blink"}}); err != nil {
		t.Fatal(err)
	}
	s.reach(id, "Ready", 60*time.Second, "Testing")
}
