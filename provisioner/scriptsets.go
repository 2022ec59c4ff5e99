package provisioner

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// ScriptChoice is what a request says of the scripts to run.
type ScriptChoice struct {
	Scripts []string          // names, tags or ids; nil: the default; "none": none but those that always run
	Params  map[string]string // <param> or <script>_<param>
}

// names takes the list apart however it came. given is false when nothing was asked for.
func (c ScriptChoice) names() (list []string, none, given bool) {
	list = splitList(c.Scripts)
	if slices.Contains(list, "none") {
		return nil, true, true
	}
	return list, false, len(list) > 0
}

// maxKept are the settings that say how many script sets of a type a machine keeps.
var maxKept = map[int64]struct {
	setting  string
	fallback int64
}{
	storage.SetCommissioning: {"max_node_commissioning_results", 10}, storage.SetTesting: {"max_node_testing_results", 10},
	storage.SetInstallation: {"max_node_installation_results", 3}, storage.SetRelease: {"max_node_release_results", 3},
	storage.SetDeployment: {"max_node_deployment_results", 3},
}

func asked(x *storage.Script, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		return n == x.Name || n == strconv.FormatInt(x.ID, 10) || slices.Contains(x.Tags, n)
	})
}

// chooseScripts picks the scripts of a run, by name. hw tells what a machine's hardware is, as far as that is known.
func chooseScripts(all []storage.Script, typ int64, c ScriptChoice, hw *hardwareFacts) []storage.Script {
	names, none, given := c.names()
	var out []storage.Script
	for _, x := range all {
		if x.Type != typ {
			continue
		}
		fits := len(x.ForHardware) == 0 || hw.match(x.ForHardware)
		pick := false
		switch {
		case typ == storage.SetCommissioning && x.IsDefault:
			pick = true
		case none:
		case given:
			pick = asked(&x, names) && fits
		case typ == storage.SetCommissioning:
			pick = len(x.ForHardware) == 0 && !slices.Contains(x.Tags, "noauto")
		case typ == storage.SetTesting:
			pick = slices.Contains(x.Tags, "commissioning") && fits
		}
		if pick {
			out = append(out, x)
		}
	}
	return out
}

// pendingResults are the results that scripts are to give.
func pendingResults(scripts []storage.Script, params map[string]string, dev *scriptDevices) ([]storage.ScriptResult, error) {
	var out []storage.ScriptResult
	for i := range scripts {
		x := &scripts[i]
		runs, err := scriptRuns(x, params, dev)
		if err != nil {
			return nil, err
		}
		for _, r := range runs {
			out = append(out, storage.ScriptResult{Name: x.Name, Instance: r.instance, ScriptID: &x.ID, VersionID: &x.VersionID, Parameters: rawJSON(r.values)})
		}
	}
	return out, nil
}

// newScriptSet gives a machine a new set of a type, ending what an older one had not finished, and trims the history.
func (s *Service) newScriptSet(tx *storage.Tx, n *storage.Node, typ int64, requested []string, results []storage.ScriptResult) (storage.ScriptSet, error) {
	if old, err := tx.CurrentScriptSet(n.ID, typ); err == nil {
		if err := tx.EndScriptSet(old.ID, storage.ScriptAborted); err != nil {
			return old, err
		}
	} else if !errors.Is(err, storage.ErrNotFound) {
		return old, err
	}
	set := storage.ScriptSet{NodeID: n.ID, Type: typ, Requested: requested}
	if err := tx.AddScriptSet(&set, results); err != nil {
		return set, err
	}
	limit := maxKept[typ]
	keep, err := s.settingInt(tx, limit.setting, limit.fallback)
	if err != nil {
		return set, err
	}
	return set, tx.TrimScriptSets(n.ID, typ, max(keep, 1))
}

// commissioningSets makes the sets of a commissioning: of commissioning scripts, and of tests where there are some to run. It tells
// whether any of them wants a distribution to run in.
func (s *Service) commissioningSets(tx *storage.Tx, n *storage.Node, p CommissionParams) (custom bool, err error) {
	all, err := tx.Scripts()
	if err != nil {
		return false, err
	}
	hw, err := s.hardwareFacts(tx, n.ID)
	if err != nil {
		return false, err
	}
	// The devices of device parameters are those that the inventory is going to find.
	dev := &scriptDevices{}
	chosen := chooseScripts(all, storage.SetCommissioning, ScriptChoice{Scripts: p.CommissioningScripts}, hw)
	results, err := pendingResults(chosen, p.ScriptParams, dev)
	if err != nil {
		return false, err
	}
	if p.SkipBMCConfig {
		for i, r := range results {
			if x := chosen[slices.IndexFunc(chosen, func(x storage.Script) bool { return x.ID == *r.ScriptID })]; slices.Contains(x.Tags, "bmc-config") {
				results[i].Status = storage.ScriptSkipped
			}
		}
	}
	names, _, _ := ScriptChoice{Scripts: p.CommissioningScripts}.names()
	if _, err := s.newScriptSet(tx, n, storage.SetCommissioning, names, results); err != nil {
		return false, err
	}
	chosenTests := chooseScripts(all, storage.SetTesting, ScriptChoice{Scripts: p.TestingScripts}, hw)
	custom = slices.ContainsFunc(slices.Concat(chosen, chosenTests), func(x storage.Script) bool { return wantsDistribution(&x) })
	tests, err := pendingResults(chosenTests, p.ScriptParams, dev)
	if err != nil || len(tests) == 0 {
		return custom, err
	}
	names, _, _ = ScriptChoice{Scripts: p.TestingScripts}.names()
	_, err = s.newScriptSet(tx, n, storage.SetTesting, names, tests)
	return custom, err
}

// scriptEnvironment is the ephemeral environment for a run: scripts of users want a distribution, so the full one when there is one.
func (s *Service) scriptEnvironment(tx *storage.Tx, n *storage.Node, custom bool) (string, error) {
	env, err := s.settingText(tx, "ingot_boot_environment", "light")
	if err != nil || !custom || env == "full" || env == "ubuntu" {
		return env, err
	}
	arch, _, _ := strings.Cut(n.Architecture, "/")
	_, err = tx.BootResourceNamed("ingot/full", arch+"/generic")
	if errors.Is(err, storage.ErrNotFound) {
		return env, nil
	}
	return "full", err
}

// devicesOf are a machine's devices as they are known.
func devicesOf(b *storage.Bundle) *scriptDevices {
	d := &scriptDevices{known: true, boot: b.Node.BootInterfaceID}
	for _, i := range b.Disks {
		d.disks = append(d.disks, i.BlockDevice)
	}
	for _, i := range b.Interfaces {
		d.nics = append(d.nics, *i)
	}
	return d
}

// findDevices replaces the placeholders of a machine's waiting runs by one run a device, now that the devices are known.
func (s *Service) findDevices(tx *storage.Tx, n *storage.Node) error {
	var b *storage.Bundle
	for _, typ := range []int64{storage.SetCommissioning, storage.SetTesting} {
		set, err := tx.CurrentScriptSet(n.ID, typ)
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		results, err := tx.ScriptResultsOf([]int64{set.ID}, false)
		if err != nil {
			return err
		}
		for _, r := range results {
			given, waits := waitsForDevices(r.Parameters)
			if !waits || r.Status != storage.ScriptPending || r.ScriptID == nil {
				continue
			}
			x, err := tx.Script(*r.ScriptID)
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if b == nil {
				if b, err = tx.LoadMachine(n.SystemID); err != nil {
					return err
				}
			}
			fresh, err := pendingResults([]storage.Script{x}, given, devicesOf(b))
			if e := new(Error); errors.As(err, &e) {
				// None of the devices that were asked for is there.
				r.Status, r.Ended, r.Output = storage.ScriptFailed, tx.Now(), []byte(e.Error()+"\n")
				fresh, err = nil, tx.SaveScriptResult(&r)
			}
			if err != nil {
				return err
			}
			if len(fresh) == 0 {
				continue
			}
			if err := tx.DeleteScriptResults([]int64{r.ID}); err != nil {
				return err
			}
			for i := range fresh {
				fresh[i].SetID = set.ID
				if err := tx.SaveScriptResult(&fresh[i]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// hardwareFacts are what scripts for certain hardware are chosen by.
type hardwareFacts struct {
	modaliases []string
	metadata   map[string]string
}

func (s *Service) hardwareFacts(tx *storage.Tx, nodeID int64) (*hardwareFacts, error) {
	hw := &hardwareFacts{}
	var err error
	if hw.metadata, err = tx.NodeMetadata(nodeID); err != nil {
		return nil, err
	}
	set, err := tx.CurrentScriptSet(nodeID, storage.SetCommissioning)
	if errors.Is(err, storage.ErrNotFound) {
		return hw, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := tx.ScriptResult(set.ID, scriptModaliases)
	if errors.Is(err, storage.ErrNotFound) {
		return hw, nil
	}
	if err == nil && r.Status == storage.ScriptPassed {
		hw.modaliases = strings.Fields(string(r.Stdout))
	}
	return hw, err
}

// match tells whether a machine has one of the pieces of hardware.
func (hw *hardwareFacts) match(ids []string) bool {
	return slices.ContainsFunc(ids, func(id string) bool {
		kind, rest, _ := strings.Cut(id, ":")
		pattern := ""
		switch kind = strings.ToLower(kind); kind {
		case "modalias":
			pattern = rest
		case "pci", "usb":
			vendor, product, _ := strings.Cut(strings.ToUpper(rest), ":")
			pattern = fmt.Sprintf("pci:v0000%sd0000%ssv*sd*bc*sc*i*", vendor, product)
			if kind == "usb" {
				pattern = fmt.Sprintf("usb:v%sp%sd*dc*dsc*dp*ic*isc*ip*", vendor, product)
			}
		default:
			return rest != "" && hw.metadata[kind] == rest
		}
		return slices.ContainsFunc(hw.modaliases, func(m string) bool {
			// A slash is nothing special in these names.
			ok, err := path.Match(strings.ReplaceAll(pattern, "/", "|"), strings.ReplaceAll(m, "/", "|"))
			return err == nil && ok
		})
	})
}

// builtinsDone goes on once all built-in results of a commissioning are in: scripts for certain hardware that the machine has are added
// when a tag of theirs was asked for, and those that wait for hardware it does not have are dropped.
func (s *Service) builtinsDone(tx *storage.Tx, n *storage.Node) error {
	set, err := tx.CurrentScriptSet(n.ID, storage.SetCommissioning)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	all, err := tx.Scripts()
	if err != nil {
		return err
	}
	byID := map[int64]*storage.Script{}
	for i := range all {
		byID[all[i].ID] = &all[i]
	}
	results, err := tx.ScriptResultsOf([]int64{set.ID}, false)
	if err != nil {
		return err
	}
	have := map[int64]bool{}
	for _, r := range results {
		if r.ScriptID == nil || byID[*r.ScriptID] == nil {
			continue
		}
		have[*r.ScriptID] = true
		if byID[*r.ScriptID].IsDefault && storage.ScriptUnfinished(r.Status) {
			return nil
		}
	}
	hw, err := s.hardwareFacts(tx, n.ID)
	if err != nil {
		return err
	}
	var drop []int64
	for _, r := range results {
		if r.ScriptID != nil && r.Status == storage.ScriptPending {
			if x := byID[*r.ScriptID]; x != nil && len(x.ForHardware) > 0 && !hw.match(x.ForHardware) {
				drop = append(drop, r.ID)
			}
		}
	}
	if err := tx.DeleteScriptResults(drop); err != nil {
		return err
	}
	var add []storage.Script
	for _, x := range all {
		if x.Type == storage.SetCommissioning && len(x.ForHardware) > 0 && !have[x.ID] && asked(&x, set.Requested) && hw.match(x.ForHardware) {
			add = append(add, x)
		}
	}
	if len(add) == 0 {
		return nil
	}
	b, err := tx.LoadMachine(n.SystemID)
	if err != nil {
		return err
	}
	fresh, err := pendingResults(add, nil, devicesOf(b))
	if e := new(Error); errors.As(err, &e) { // a parameter without a default: such a script must be asked for with it
		s.Log.Warn("a script for certain hardware was not added", "system_id", n.SystemID, "reason", e.Error())
		return nil
	}
	if err != nil {
		return err
	}
	for i := range fresh {
		fresh[i].SetID = set.ID
		if err := tx.SaveScriptResult(&fresh[i]); err != nil {
			return err
		}
	}
	return nil
}

// RunnableScript is a script that a runner is to run, as index.json names it.
type RunnableScript struct {
	Name            string          `json:"name"`
	Path            string          `json:"path"`
	ScriptResultID  int64           `json:"script_result_id"`
	ScriptVersionID int64           `json:"script_version_id"`
	TimeoutSeconds  int64           `json:"timeout_seconds"`
	Parallel        int64           `json:"parallel"`
	HardwareType    int64           `json:"hardware_type"`
	Parameters      json.RawMessage `json:"parameters"`
	Packages        json.RawMessage `json:"packages"`
	ForHardware     []string        `json:"for_hardware"`
	ApplyNetwork    bool            `json:"apply_configured_networking"`
	HasStarted      bool            `json:"has_started"`
	HasFinished     bool            `json:"has_finished"`
	Default         bool            `json:"default"`
	Tags            []string        `json:"tags"`

	Text   []byte               `json:"-"`
	Result storage.ScriptResult `json:"-"` // what a script that was started has printed so far
}

// scriptGroups are the groups of index.json, with the folder that each group's scripts are in.
var scriptGroups = []struct {
	typ          int64
	name, folder string
}{
	{storage.SetCommissioning, "commissioning_scripts", "commissioning"}, {storage.SetTesting, "testing_scripts", "testing"},
	{storage.SetRelease, "release_scripts", "release"}, {storage.SetDeployment, "deployment_scripts", "deployment"},
}

// groupsOf are the types of scripts that a machine runs in a status.
func groupsOf(st storage.NodeStatus) []int64 {
	switch st {
	case storage.StatusCommissioning:
		return []int64{storage.SetCommissioning, storage.SetTesting}
	case storage.StatusEnteringRescueMode, storage.StatusRescueMode, storage.StatusDeployed:
		return []int64{storage.SetCommissioning}
	case storage.StatusReleasing, storage.StatusDiskErasing:
		return []int64{storage.SetRelease}
	case storage.StatusDeploying:
		return []int64{storage.SetDeployment}
	}
	return []int64{storage.SetTesting}
}

// runnable collects the scripts that wait for a machine, by group of index.json.
func runnable(tx *storage.Tx, n *storage.Node) (map[string][]RunnableScript, error) {
	all, err := tx.Scripts()
	if err != nil {
		return nil, err
	}
	byID := map[int64]*storage.Script{}
	for i := range all {
		byID[all[i].ID] = &all[i]
	}
	out := map[string][]RunnableScript{}
	var versions []int64
	for _, g := range scriptGroups {
		if !slices.Contains(groupsOf(n.Status), g.typ) {
			continue
		}
		set, err := tx.CurrentScriptSet(n.ID, g.typ)
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		results, err := tx.ScriptResultsOf([]int64{set.ID}, true)
		if err != nil {
			return nil, err
		}
		for _, r := range results {
			if r.ScriptID == nil || byID[*r.ScriptID] == nil || !storage.ScriptUnfinished(r.Status) {
				continue
			}
			x := byID[*r.ScriptID]
			// The text that a result was ordered with may be gone by a revert; the current one then stands in.
			version := deref(r.VersionID, x.VersionID)
			versions = append(versions, version)
			item := RunnableScript{Name: x.Name, Path: g.folder + "/" + x.Name, ScriptResultID: r.ID, ScriptVersionID: version, TimeoutSeconds: int64(x.Timeout.Seconds()),
				Parallel: x.Parallel, HardwareType: x.HardwareType, Parameters: orEmpty(r.Parameters), Packages: orEmpty(x.Packages), ForHardware: append([]string{}, x.ForHardware...),
				ApplyNetwork: x.ApplyNetwork, HasStarted: r.Status != storage.ScriptPending, Default: x.IsDefault, Tags: append([]string{}, x.Tags...), Result: r}
			out[g.name] = append(out[g.name], item)
		}
	}
	texts, err := tx.ScriptVersionTexts(versions)
	if err != nil {
		return nil, err
	}
	for _, items := range out {
		for i := range items {
			items[i].Text = texts[items[i].ScriptVersionID]
		}
		slices.SortStableFunc(items, func(a, b RunnableScript) int {
			if c := strings.Compare(a.Name, b.Name); c != 0 {
				return c
			}
			return int(a.ScriptResultID - b.ScriptResultID)
		})
	}
	return out, nil
}

func orEmpty(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("{}")
	}
	return raw
}
