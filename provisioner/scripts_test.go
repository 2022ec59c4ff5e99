package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/jobs"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

const testLSHW = `<?xml version="1.0"?><list><node id="m" class="system"><node id="display" class="display"><vendor>NVIDIA</vendor></node></node></list>`

// wrap makes a script of metadata lines.
func scriptText(lines ...string) []byte {
	return []byte("#!/bin/sh\n# --- Start MAAS 1.0 script metadata ---\n# " + strings.Join(lines, "\n# ") + "\n# --- End MAAS 1.0 script metadata ---\ntrue\n")
}

func (x *site) script(lines ...string) ScriptWithHistory {
	x.t.Helper()
	s, err := x.s.CreateScript(x.as(x.admin), ScriptInput{Content: scriptText(lines...)})
	if err != nil {
		x.t.Fatalf("%v %v", lines, err)
	}
	return s
}

func TestScriptForm(t *testing.T) {
	text := func(v string) *string { return &v }
	for name, c := range map[string]struct {
		in    ScriptInput
		field string // that is wrong; "" for none
	}{
		"good":              {ScriptInput{Content: scriptText("name: a", "tags: x, y", "hardware_type: ssd", "timeout: 00:01:00", "packages: {apt: memtester, snap: {name: x, channel: edge}}")}, ""},
		"fields":            {ScriptInput{Name: text("a"), Content: []byte("#!/bin/sh\n"), Type: text("test"), Timeout: text("2 01:00:00"), ForHardware: []string{"pci:8086:1521"}}, ""},
		"no shebang":        {ScriptInput{Name: text("a"), Content: []byte("echo\n")}, "script"},
		"no script":         {ScriptInput{Name: text("a")}, "script"},
		"no name":           {ScriptInput{Content: []byte("#!/bin/sh\n")}, "name"},
		"none":              {ScriptInput{Name: text("none"), Content: []byte("#!/bin/sh\n")}, "name"},
		"number":            {ScriptInput{Name: text("12"), Content: []byte("#!/bin/sh\n")}, "name"},
		"quoting":           {ScriptInput{Name: text("a b"), Content: []byte("#!/bin/sh\n")}, "name"},
		"path":              {ScriptInput{Name: text("../a"), Content: []byte("#!/bin/sh\n")}, "name"},
		"long":              {ScriptInput{Name: text(strings.Repeat("a", 256)), Content: []byte("#!/bin/sh\n")}, "name"},
		"contradiction":     {ScriptInput{Name: text("b"), Content: scriptText("name: a")}, "name"},
		"contradicted type": {ScriptInput{Type: text("commissioning"), Content: scriptText("name: a", "script_type: test")}, "type"},
		"same in words":     {ScriptInput{Type: text("2"), Content: scriptText("name: a", "script_type: test")}, ""},
		"bad type":          {ScriptInput{Name: text("a"), Type: text("x"), Content: []byte("#!/bin/sh\n")}, "type"},
		"bad yaml":          {ScriptInput{Content: scriptText("name: [")}, "script"},
		"yaml list":         {ScriptInput{Content: scriptText("- a")}, "script"},
		"yaml bomb":         {ScriptInput{Content: scriptText("a: &a [x,x,x,x,x,x,x,x,x]", "b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]", "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]", "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]", "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]", "f: [*e,*e,*e,*e,*e,*e,*e,*e,*e]")}, "script"},
		"bad timeout":       {ScriptInput{Name: text("a"), Timeout: text("soon"), Content: []byte("#!/bin/sh\n")}, "timeout"},
		"bad hardware id":   {ScriptInput{Name: text("a"), ForHardware: []string{"pci:1"}, Content: []byte("#!/bin/sh\n")}, "for_hardware"},
		"bad packages":      {ScriptInput{Name: text("a"), Packages: text("["), Content: []byte("#!/bin/sh\n")}, "packages"},
		"snap without name": {ScriptInput{Content: scriptText("name: a", "packages: {snap: [{channel: edge}]}")}, "packages"},
		"bad parameter":     {ScriptInput{Content: scriptText("name: a", "parameters: {x: {type: what}}")}, "parameters"},
		"bounded storage":   {ScriptInput{Content: scriptText("name: a", "parameters: {x: {type: storage, min: 1}}")}, "parameters"},
		"format":            {ScriptInput{Content: scriptText("name: a", "parameters: {x: {type: storage, argument_format: '--x'}}")}, "parameters"},
		"no choices":        {ScriptInput{Content: scriptText("name: a", "parameters: {x: {type: choice}}")}, "parameters"},
		"bad default":       {ScriptInput{Content: scriptText("name: a", "parameters: {x: {type: runtime, min: 5, default: 1}}")}, "parameters"},
		"bad results":       {ScriptInput{Content: scriptText("name: a", "results: {x: {description: y}}")}, "results"},
		"no hash":           {ScriptInput{Content: []byte("#!/bin/sh\n# --- Start MAAS 1.0 script metadata ---\nname: a\n# --- End MAAS 1.0 script metadata ---\n")}, "script"},
	} {
		s := storage.Script{Type: storage.SetTesting}
		err := c.in.apply(&s, true)
		var e *Error
		if errors.As(err, &e); c.field == "" && err != nil || c.field != "" && (e == nil || e.Fields[c.field] == nil) {
			t.Errorf("%s: %v, want an error of %q", name, err, c.field)
		}
	}
	var s storage.Script
	if err := (ScriptInput{Content: scriptText("name: a", "tags: [x, cpu]", "hardware_type: memory", "destructive: true", "timeout: 90", "parallel: any")}).apply(&s, true); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Tags, []string{"x", "memory", "destructive"}) || s.Timeout != 90*time.Second || s.Parallel != 2 || s.HardwareType != HardwareMemory || !s.Destructive {
		t.Errorf("%+v", s)
	}
}

func TestHardwareMatch(t *testing.T) {
	hw := &hardwareFacts{modaliases: []string{"pci:v00008086d00001521sv00008086sd00000001bc02sc00i00", "usb:v1D6Bp0002d0504dc09dsc00dp01ic09isc00ip00in00", "acpi:PNP0C02:"},
		metadata: map[string]string{"system_vendor": "Dell Inc."}}
	for id, want := range map[string]bool{"pci:8086:1521": true, "pci:8086:1522": false, "usb:1d6b:0002": true, "modalias:acpi:PNP*": true, "modalias:acpi:QQQ*": false,
		"system_vendor:Dell Inc.": true, "system_vendor:dell inc.": false, "mainboard_vendor:": false} {
		if hw.match([]string{id}) != want {
			t.Errorf("%s: not %v", id, want)
		}
	}
}

// TestScriptsOfALife runs commissioning and testing scripts through a machine's life, as a runner would.
func TestScriptsOfALife(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		ctx := context.Background()
		id := x.enlisted("uefi")
		probe := x.script("name: probe", "script_type: commissioning", "recommission: true")
		x.script("name: nic-fix", "script_type: commissioning", "tags: nics", "for_hardware: pci:8086:1521")
		x.script("name: other-fix", "script_type: commissioning", "tags: nics", "for_hardware: pci:8086:9999")
		x.script("name: disk-check", "script_type: testing", "tags: commissioning", "hardware_type: storage", "parameters: {storage: {type: storage}, secret: {type: password, default: hush}}")
		groups := func() map[string][]RunnableScript {
			g, err := x.s.Runnable(ctx, x.get(id).Node.ID)
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		names := func(l []RunnableScript) (out []string) {
			for _, s := range l {
				out = append(out, s.Name)
			}
			return out
		}
		zero := int64(0)
		end := func(s RunnableScript, out string) {
			x.signal(id, Signal{Status: "WORKING", ScriptResultID: s.ScriptResultID})
			x.signal(id, Signal{Status: "WORKING", ScriptResultID: s.ScriptResultID, ExitStatus: &zero, Files: map[string][]byte{s.Name: []byte(out), s.Name + ".out": []byte(out)}})
		}
		x.must(x.s.Commission(x.as(x.admin), id, CommissionParams{CommissioningScripts: []string{"probe,nics"}, TestingScripts: []string{"disk-check"}}))
		x.job(id, api.PowerResult{State: "on"})
		first := groups()["commissioning_scripts"]
		if !slices.Equal(names(first), []string{"30-maas-01-bmc-config", InventoryScript, "maas-capture-lldpd", "maas-kernel-cmdline", "maas-list-modaliases", "maas-lshw", "probe"}) {
			t.Fatalf("to run: %v", names(first))
		}
		if len(first[len(first)-1].Text) == 0 || first[len(first)-1].ScriptVersionID != probe.VersionID {
			t.Errorf("%+v", first[len(first)-1])
		}
		run := func(l []RunnableScript) {
			for _, s := range l {
				switch s.Name {
				case InventoryScript:
					mac := x.get(id).Interfaces[0].MACAddress
					end(s, string(testInventory(mac, "10.1.9.9", "uefi", 2, 4096)))
				case "maas-list-modaliases":
					end(s, "pci:v00008086d00001521sv0sd0bc02sc00i00\n")
				case "maas-lshw":
					end(s, testLSHW)
				default:
					end(s, "ok\n")
				}
			}
		}
		run(first)
		// The probe wants all data gathered again; the script for the card that is there has been added, the other has not.
		second := groups()["commissioning_scripts"]
		if !slices.Contains(names(second), InventoryScript) || slices.Contains(names(second), "probe") {
			t.Fatalf("after a script that wants a recommissioning: %v", names(second))
		}
		run(second)
		if left := names(groups()["commissioning_scripts"]); !slices.Equal(left, []string{"nic-fix"}) && !slices.Contains(names(second), "nic-fix") {
			t.Fatalf("for the hardware: %v after %v", left, names(second))
		}
		run(groups()["commissioning_scripts"])
		tests := groups()["testing_scripts"]
		if len(tests) != 1 || tests[0].Name != "disk-check" || !strings.Contains(string(tests[0].Parameters), `"name":"vda"`) {
			t.Fatalf("tests: %v %s", names(tests), tests[0].Parameters)
		}
		x.signal(id, Signal{Status: "TESTING"})
		x.status(id, storage.StatusTesting)
		if task, err := x.s.Task(ctx, x.get(id).Node.ID, "http://r/MAAS/metadata/"); err != nil || task.Step != api.TaskTest {
			t.Fatalf("%+v %v", task, err)
		}
		one := int64(1)
		x.signal(id, Signal{Status: "WORKING", ScriptResultID: tests[0].ScriptResultID})
		x.signal(id, Signal{Status: "WORKING", ScriptResultID: tests[0].ScriptResultID, ExitStatus: &one, Files: map[string][]byte{"disk-check": []byte("bad"),
			"disk-check.yaml": []byte("status: degraded\n")}})
		x.signal(id, Signal{Status: "OK"})
		b := x.status(id, storage.StatusReady)
		if st := ScriptSetStatus(b.Sets[storage.SetTesting].Hardware[HardwareStorage]); st != storage.ScriptDegraded {
			t.Errorf("storage tests: %d", st)
		}
		sets, err := x.s.ScriptSets(x.as(x.admin), id, ResultFilter{Names: []string{"disk-check"}, Outputs: true})
		if err != nil || len(sets) < 2 || sets[0].Type != storage.SetTesting || len(sets[0].Results) != 1 || string(sets[0].Results[0].Output) != "bad" {
			t.Fatalf("%+v %v", sets, err)
		}
		if shown := fmt.Sprint(ShownParameters(sets[0].Results[0].Parameters)); strings.Contains(shown, "hush") || !strings.Contains(shown, "REDACTED") {
			t.Errorf("parameters: %s", shown)
		}

		// A test that fails keeps the machine from use until somebody overrides it.
		if _, err := x.s.TestMachine(x.as(x.admin), id, TestParams{ScriptChoice: ScriptChoice{Scripts: []string{"nothing"}}}); err == nil || err.Error() != "No testing scripts found!" {
			t.Fatalf("a test of nothing: %v", err)
		}
		if _, err := x.s.TestMachine(x.as(x.user), id, TestParams{}); kindOf(err) != Forbidden {
			t.Fatalf("a user tests: %v", err)
		}
		x.must(x.s.TestMachine(x.as(x.admin), id, TestParams{ScriptChoice: ScriptChoice{Scripts: []string{"disk-check"}, Params: map[string]string{"disk-check_storage": "vda"}}}))
		x.status(id, storage.StatusTesting)
		if _, err := x.s.TestMachine(x.as(x.admin), id, TestParams{}); kindOf(err) != Invalid {
			t.Fatalf("a test while testing: %v", err)
		}
		x.job(id, api.PowerResult{State: "on"})
		tests = groups()["testing_scripts"]
		x.signal(id, Signal{Status: "WORKING", ScriptResultID: tests[0].ScriptResultID, ExitStatus: &one, Files: map[string][]byte{"disk-check": []byte("worse")}})
		x.signal(id, Signal{Status: "OK"}) // whatever the runner says, a test has failed
		b = x.status(id, storage.StatusFailedTesting)
		if !strings.Contains(b.Node.ErrorDescription, "disk-check on vda") {
			t.Errorf("reason: %q", b.Node.ErrorDescription)
		}
		x.must(x.s.OverrideFailedTesting(x.as(x.admin), id, ""))
		x.status(id, storage.StatusReady)

		// Abort, and what a late result does then: nothing.
		x.must(x.s.TestMachine(x.as(x.admin), id, TestParams{}))
		late := groups()["testing_scripts"][0]
		x.must(x.s.Abort(x.as(x.admin), id, ""))
		x.status(id, storage.StatusReady)
		x.signal(id, Signal{Status: "WORKING", ScriptResultID: late.ScriptResultID, ExitStatus: &zero})
		x.write(func(tx *storage.Tx) error {
			r, err := tx.ScriptResultByID(x.get(id).Node.ID, late.ScriptResultID)
			if err == nil && r.Status != storage.ScriptAborted {
				t.Errorf("the aborted test is %d", r.Status)
			}
			return err
		})
	})
}

// A script that the machine did not run, or that failed, fails the commissioning.
func TestCommissioningNeedsItsScripts(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	id := x.enlisted("bios")
	x.script("name: must", "script_type: commissioning")
	x.must(x.s.Commission(x.as(x.admin), id, CommissionParams{}))
	x.job(id, api.PowerResult{State: "on"})
	x.report(id, "bios")
	if b := x.status(id, storage.StatusFailedCommissioning); !strings.Contains(b.Node.ErrorDescription, "must") {
		t.Errorf("reason: %q", b.Node.ErrorDescription)
	}
	x.must(x.s.Commission(x.as(x.admin), id, CommissionParams{CommissioningScripts: []string{"none"}}))
	x.job(id, api.PowerResult{State: "on"})
	x.report(id, "bios")
	x.status(id, storage.StatusReady)
}

// runJobs runs what waits in the region's queue until none is left.
func (x *site) runJobs() {
	x.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- (&jobs.Runner{DB: x.db, Queues: []string{"region"}, Worker: "test", Handlers: x.s.JobHandlers(), Poll: 5 * time.Millisecond}).Run(ctx)
	}()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var left int64
		x.write(func(tx *storage.Tx) error {
			return tx.QueryRow(`select count(*) from jobs where queue = 'region' and state in ('ready', 'running')`).Scan(&left)
		})
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			x.t.Fatal("the region's jobs do not end")
		}
	}
	cancel()
	<-done
}

// hardware gives a machine what lshw would say of it.
func (x *site) hardware(systemID, lshw, lldp string) {
	x.t.Helper()
	x.write(func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if err != nil {
			return err
		}
		set, err := tx.CurrentScriptSet(n.ID, storage.SetCommissioning)
		if errors.Is(err, storage.ErrNotFound) {
			set, err = tx.InsertScriptSet(n.ID, storage.SetCommissioning)
		}
		if err != nil {
			return err
		}
		for name, doc := range map[string]string{storage.ResultLSHW: lshw, storage.ResultLLDP: lldp} {
			if doc == "" {
				continue
			}
			if err := tx.SaveScriptResult(&storage.ScriptResult{SetID: set.ID, Name: name, Status: storage.ScriptPassed, Stdout: []byte(doc)}); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestTagDefinitions(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		gpu, plain, bare := x.ready("bios"), x.ready("bios"), x.ready("bios")
		x.hardware(gpu, testLSHW, "")
		x.hardware(plain, "<list><node id='m'/></list>", `<lldp><interface name="eth0"/></lldp>`)
		ctx, text := x.as(x.admin), func(v string) *string { return &v }
		tagged := func(tag string) (out []string) {
			for _, id := range []string{gpu, plain, bare} {
				if slices.Contains(x.get(id).Tags, tag) {
					out = append(out, id)
				}
			}
			return out
		}
		if _, err := x.s.CreateTag(ctx, TagInput{Name: text("gpu"), Definition: text(`//node[@id="display"]`), KernelOpts: text("nomodeset")}); err != nil {
			t.Fatal(err)
		}
		x.runJobs()
		if got := tagged("gpu"); !slices.Equal(got, []string{gpu}) {
			t.Fatalf("gpu: %v", got)
		}
		// By hand, where the expression says nothing: without documents a machine keeps the tag.
		if _, _, err := x.s.UpdateTagNodes(ctx, "gpu", []string{plain, bare}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := x.s.RebuildTag(ctx, "gpu"); err != nil {
			t.Fatal(err)
		}
		x.runJobs()
		if got := tagged("gpu"); !slices.Equal(got, []string{gpu, bare}) {
			t.Fatalf("after a rebuild: %v", got)
		}
		if _, err := x.s.UpdateTag(ctx, "gpu", TagInput{Definition: text(`//lldp:interface`)}); err != nil {
			t.Fatal(err)
		}
		x.runJobs()
		if got := tagged("gpu"); !slices.Equal(got, []string{plain, bare}) {
			t.Fatalf("with another definition: %v", got)
		}
		// An order that is superseded before it is carried out changes nothing.
		x.write(func(tx *storage.Tx) error {
			tag, err := tx.TagByName("gpu")
			if err != nil {
				return err
			}
			tag.Definition = "//node"
			return x.s.enqueueTag(tx, &tag)
		})
		x.runJobs()
		if got := tagged("gpu"); !slices.Equal(got, []string{plain, bare}) {
			t.Fatalf("by an old order: %v", got)
		}
		for _, bad := range []string{"invalid::tag", "//node[", "foo()"} {
			_, err := x.s.CreateTag(ctx, TagInput{Name: text("bad"), Definition: text(bad)})
			if e := new(Error); !errors.As(err, &e) || len(e.Fields["definition"]) != 1 || !strings.HasPrefix(e.Fields["definition"][0], "Invalid xpath expression: ") {
				t.Errorf("%s: %v", bad, err)
			}
		}

		// A machine gets its tags when it is commissioned, without any job.
		x.must(x.s.Commission(ctx, bare, CommissionParams{}))
		x.job(bare, api.PowerResult{State: "on"})
		zero := int64(0)
		doc := []byte(`<lldp xmlns="urn:x"><interface name="eth1"/></lldp>`)
		x.signal(bare, Signal{Status: "WORKING", Name: storage.ResultLLDP, ExitStatus: &zero, Files: map[string][]byte{storage.ResultLLDP: doc, storage.ResultLLDP + ".out": doc}})
		x.write(func(tx *storage.Tx) error { return tx.UntagNode(x.get(bare).Node.ID, "gpu") })
		x.report(bare, "bios")
		x.status(bare, storage.StatusReady)
		if got := tagged("gpu"); !slices.Equal(got, []string{plain, bare}) {
			t.Fatalf("after commissioning: %v", got)
		}
	})
}

// A definition that asks for too much work ends its job, and the administrators hear of it.
func TestTagDefinitionTooMuch(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	storagetest.Fleet(t, x.db, tagTooMuch+5)
	doc := "<list>" + strings.Repeat("<node><a/><b/></node>", 3000) + "</list>"
	for i := range tagTooMuch + 5 {
		x.hardware(fmt.Sprintf("n%05x", i), doc, "")
	}
	text := func(v string) *string { return &v }
	if _, err := x.s.CreateTag(x.as(x.admin), TagInput{Name: text("slow"), Definition: text("//*[count(//*[count(//*) > 0]) > 0]")}); err != nil {
		t.Fatal(err)
	}
	x.runJobs()
	notes, err := x.s.Notifications(x.as(x.admin))
	if err != nil || len(notes) != 1 || !strings.Contains(string(notes[0].Context), "slow") {
		t.Fatalf("%+v %v", notes, err)
	}
}

// BenchmarkTagDefinition measures how long a definition takes over ten thousand machines, each with an lshw document of the usual size.
func BenchmarkTagDefinition(b *testing.B) {
	x := newSite(b, storagetest.New(b))
	storagetest.Fleet(b, x.db, benchMachines)
	var inner strings.Builder
	for i := range 90 {
		fmt.Fprintf(&inner, `<node id="dev:%d" claimed="true" class="generic" handle="PCI:0000:00:%02x.0"><description>System peripheral</description><product>Sky Lake-E CHA Registers</product>`+
			`<vendor>Intel Corporation</vendor><physid>8</physid><businfo>pci@0000:16:08.0</businfo><version>07</version><width units="bits">32</width><clock units="Hz">33000000</clock>`+
			`<configuration><setting id="latency" value="0" /></configuration><capabilities><capability id="pciexpress" >PCI Express</capability></capabilities></node>`, i, i)
	}
	with := strings.Replace(testLSHW, `<node id="display"`, inner.String()+`<node id="display"`, 1)
	without := strings.Replace(with, `id="display"`, `id="none"`, 1)
	for from := 0; from < benchMachines; from += 500 {
		x.write(func(tx *storage.Tx) error {
			for i := from; i < from+500; i++ {
				n, err := tx.Node(fmt.Sprintf("n%05x", i))
				if err != nil {
					return err
				}
				set, err := tx.CurrentScriptSet(n.ID, storage.SetCommissioning)
				if err != nil {
					return err
				}
				doc := without
				if i%4 == 0 {
					doc = with
				}
				if err := tx.SaveScriptResult(&storage.ScriptResult{SetID: set.ID, Name: storage.ResultLSHW, Status: storage.ScriptPassed, Stdout: []byte(doc)}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	text := func(v string) *string { return &v }
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprintf("gpu%d", i)
		if _, err := x.s.CreateTag(x.as(x.admin), TagInput{Name: text(name), Definition: text(`//node[@id="display"]/vendor[contains(., "NVIDIA")]`)}); err != nil {
			b.Fatal(err)
		}
		x.runJobs()
		var tagged int64
		x.write(func(tx *storage.Tx) error {
			t, err := tx.TagByName(name)
			if err != nil {
				return err
			}
			ids, err := tx.TagNodes(t.ID)
			tagged = int64(len(ids))
			return err
		})
		if tagged != benchMachines/4 {
			b.Fatalf("%d machines have the tag", tagged)
		}
	}
	b.ReportMetric(float64(len(with)), "document-bytes")
}
