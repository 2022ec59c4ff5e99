package provisioner

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/storage"
)

// scriptStatusNames are the names of the statuses of results.
var scriptStatusNames = map[int64]string{-1: "Unknown", 0: "Pending", 1: "Running", 2: "Passed", 3: "Failed", 4: "Timed out", 5: "Aborted", 6: "Degraded",
	7: "Installing dependencies", 8: "Failed installing dependencies", 9: "Skipped", 10: "Applying custom network configuration",
	11: "Failed to apply custom network configuration"}

// ScriptStatusName is the name of a result's status: Passed.
func ScriptStatusName(status int64) string { return scriptStatusNames[status] }

// ScriptSetStatus is the status of a whole set, by how many of its results have each status: the first of these groups that is there.
func ScriptSetStatus(counts map[int64]int) int64 {
	any := func(statuses ...int64) bool {
		return slices.ContainsFunc(statuses, func(s int64) bool { return counts[s] > 0 })
	}
	switch {
	case len(counts) == 0:
		return -1
	case any(1, 7, 10):
		return 1
	case any(0):
		return 0
	case any(5):
		return 5
	case any(3, 4, 8, 11):
		return 3
	case any(6):
		return 6
	}
	return 2
}

// reported is one script's part of a signal: the row it belongs to, and what came for it.
type reported struct {
	row    storage.ScriptResult
	out    map[string][]byte // "", ".out", ".err", ".yaml"
	known  bool              // the row is in the store
	ending bool              // the script has ended
}

// streams sorts the files of a signal by the scripts that they belong to.
func streams(sig Signal) map[string]map[string][]byte {
	out := map[string]map[string][]byte{}
	put := func(name, suffix string, data []byte) {
		if name = clip(name); out[name] == nil {
			out[name] = map[string][]byte{}
		}
		out[name][suffix] = data[:min(len(data), maxOutput)]
	}
	for file, data := range sig.Files {
		suffix := ""
		for _, s := range []string{".out", ".err", ".yaml"} {
			if strings.HasSuffix(file, s) {
				suffix = s
			}
		}
		put(strings.TrimSuffix(file, suffix), suffix, data)
	}
	if sig.Name != "" && sig.ExitStatus != nil && out[clip(sig.Name)] == nil && sig.ScriptResultID == 0 {
		out[clip(sig.Name)] = map[string][]byte{}
	}
	return out
}

// setOf is the type of the scripts that a machine runs in a status.
func setOf(st storage.NodeStatus) int64 {
	return map[storage.NodeStatus]int64{storage.StatusTesting: storage.SetTesting, storage.StatusDiskErasing: storage.SetRelease,
		storage.StatusReleasing: storage.SetRelease, storage.StatusDeploying: storage.SetInstallation}[st]
}

// storeResults keeps what a signal says of scripts, and reads the inventory when it is among them.
func (s *Service) storeResults(tx *storage.Tx, n *storage.Node, sig Signal) error {
	files := streams(sig)
	if len(files) > 64 {
		return Errorf(Invalid, "Too many results in one signal.")
	}
	var list []*reported
	var set storage.ScriptSet
	if sig.ScriptResultID != 0 {
		row, err := tx.ScriptResultByID(n.ID, sig.ScriptResultID)
		if err == nil {
			if set, err = tx.ScriptSet(row.SetID); err != nil {
				return err
			}
			r := &reported{row: row, known: true, out: files[row.Name], ending: sig.ExitStatus != nil}
			list = append(list, r)
		} else if !errors.Is(err, storage.ErrNotFound) {
			return err
		}
	}
	if len(list) == 0 {
		var err error
		set, err = tx.CurrentScriptSet(n.ID, setOf(n.Status))
		if errors.Is(err, storage.ErrNotFound) && len(files) == 0 {
			return nil
		}
		if errors.Is(err, storage.ErrNotFound) {
			set, err = tx.InsertScriptSet(n.ID, setOf(n.Status))
		}
		if err != nil {
			return err
		}
		for _, name := range sortedNames(files) {
			row, err := tx.ScriptResult(set.ID, name)
			known := err == nil
			if errors.Is(err, storage.ErrNotFound) {
				row, err = storage.ScriptResult{SetID: set.ID, Name: name}, nil
			}
			if err != nil {
				return err
			}
			list = append(list, &reported{row: row, known: known, out: files[name], ending: true})
		}
	}
	if err := tx.PingScriptSet(set.ID); err != nil {
		return err
	}
	for _, r := range list {
		if err := s.storeResult(tx, n, set, r, sig); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) storeResult(tx *storage.Tx, n *storage.Node, set storage.ScriptSet, r *reported, sig Signal) error {
	row, was := r.row, r.row.Status
	if r.known && r.row.ScriptID != nil && in(n.Status, storage.StatusCommissioning, storage.StatusTesting) && !storage.ScriptUnfinished(was) {
		return nil // it has ended, or was called off: what comes late does not count
	}
	if row.Started.IsZero() {
		row.Started = tx.Now()
	}
	if !r.ending {
		switch sig.Status {
		case "INSTALLING":
			row.Status = storage.ScriptInstalling
		case "APPLYING_NETCONF":
			row.Status = storage.ScriptApplyingNet
		default:
			row.Status = storage.ScriptRunning
		}
		if r.out != nil {
			row.Output, row.Stdout, row.Stderr = r.out[""], r.out[".out"], r.out[".err"]
		}
		if err := tx.SaveScriptResult(&row); err != nil {
			return err
		}
		if was == storage.ScriptPending && set.Type == storage.SetTesting {
			if err := s.nodeEvent(tx, n, evRunningTest, runName(&row)); err != nil {
				return err
			}
		}
		return s.scriptChanged(tx, n, &row, was)
	}
	row.ExitStatus, row.Ended = sig.ExitStatus, tx.Now()
	row.Output, row.Stdout, row.Stderr, row.Result = r.out[""], r.out[".out"], r.out[".err"], r.out[".yaml"]
	row.Status = storage.ScriptPassed
	switch {
	case sig.Status == "TIMEDOUT":
		row.Status = storage.ScriptTimedOut
	case sig.ExitStatus != nil && *sig.ExitStatus != 0:
		row.Status = storage.ScriptFailed
		switch was {
		case storage.ScriptInstalling:
			row.Status = storage.ScriptInstallFailed
		case storage.ScriptApplyingNet:
			row.Status = storage.ScriptApplyNetFailed
		}
	}
	if err := s.ownVerdict(tx, n, &row); err != nil {
		return err
	}
	passed := func() bool { return row.Status == storage.ScriptPassed }
	if row.Name == InventoryScript && set.Type == storage.SetCommissioning && passed() {
		data := row.Stdout
		if whole := sig.Files[row.Name+".out"]; len(whole) > len(data) {
			data = whole
		}
		if len(data) == 0 {
			data = sig.Files[row.Name]
		}
		if err := s.takeInventory(tx, n, &row, data); err != nil {
			return err
		}
	}
	if err := tx.SaveScriptResult(&row); err != nil {
		return err
	}
	if err := s.scriptChanged(tx, n, &row, was); err != nil {
		return err
	}
	if set.Type != storage.SetCommissioning {
		return nil
	}
	if passed() && (row.Name == scriptCmdline || row.Name == InventoryScript) {
		if err := s.bootInterface(tx, n, set.ID); err != nil {
			return err
		}
	}
	if n.Status != storage.StatusCommissioning {
		return nil
	}
	if row.Name == InventoryScript && passed() {
		if err := s.findDevices(tx, n); err != nil {
			return err
		}
	}
	if row.ScriptID != nil && passed() {
		x, err := tx.Script(*row.ScriptID)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		if x.Recommission && !x.IsDefault {
			return tx.RestartBuiltins(set.ID)
		}
	}
	return s.builtinsDone(tx, n)
}

// runName is a script's name, and the device that it runs on.
func runName(r *storage.ScriptResult) string {
	name := r.Name
	for _, word := range strings.Fields(r.Instance) {
		if _, device, ok := strings.Cut(word, ":"); ok {
			name += " on " + device
		}
	}
	return name
}

// scriptChanged writes the events of a result that has another status now.
func (s *Service) scriptChanged(tx *storage.Tx, n *storage.Node, r *storage.ScriptResult, was int64) error {
	if r.Status == was || r.ScriptID == nil {
		return nil
	}
	if err := s.nodeEvent(tx, n, evScriptChanged, fmt.Sprintf("%s changed status from '%s' to '%s'", runName(r), scriptStatusNames[was], scriptStatusNames[r.Status])); err != nil {
		return err
	}
	if !storage.ScriptHasFailed(r.Status) && r.Status != storage.ScriptAborted && r.Status != storage.ScriptDegraded {
		return nil
	}
	return s.nodeEvent(tx, n, evScriptIncomplete, runName(r)+" "+strings.ToLower(scriptStatusNames[r.Status]))
}

// ownVerdict reads what a script wrote to its result file: it overrides the exit status.
func (s *Service) ownVerdict(tx *storage.Tx, n *storage.Node, r *storage.ScriptResult) error {
	if len(r.Result) == 0 {
		return nil
	}
	bad := func(why string) error {
		return s.nodeEvent(tx, n, evScriptResultError, clip(runName(r)+": "+why))
	}
	var doc any
	if len(r.Result) > maxScriptField {
		return bad("the result file is too long")
	}
	if err := yaml.Unmarshal(r.Result, &doc); err != nil {
		return bad("the result file is not YAML: " + err.Error())
	}
	m, ok := plain(doc, 0).(map[string]any)
	if !ok {
		return bad("the result file is not a mapping")
	}
	if v, ok := m["status"]; ok {
		status, known := map[any]int64{"passed": storage.ScriptPassed, "failed": storage.ScriptFailed, "degraded": storage.ScriptDegraded,
			"timedout": storage.ScriptTimedOut, "skipped": storage.ScriptSkipped}[v]
		if !known {
			return bad("status must be passed, failed, degraded, timedout or skipped")
		}
		r.Status = status
	}
	connected, ok := m["link_connected"].(bool)
	if !ok {
		return nil
	}
	var params map[string]struct {
		Type  string `json:"type"`
		Value struct {
			ID int64 `json:"id"`
		} `json:"value"`
	}
	if json.Unmarshal(r.Parameters, &params) != nil {
		return nil // no parameter names a device
	}
	for _, p := range params {
		if p.Type != "interface" || p.Value.ID == 0 {
			continue
		}
		i, err := tx.Interface(p.Value.ID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && i.NodeID != n.ID {
			continue
		}
		if err != nil {
			return err
		}
		i.LinkConnected = connected
		if err := tx.UpdateInterface(&i); err != nil {
			return err
		}
	}
	return nil
}

// bootInterface takes the interface that a machine says it booted from for its boot interface.
func (s *Service) bootInterface(tx *storage.Tx, n *storage.Node, setID int64) error {
	r, err := tx.ScriptResult(setID, scriptCmdline)
	if errors.Is(err, storage.ErrNotFound) || err == nil && r.Status != storage.ScriptPassed {
		return nil
	}
	if err != nil {
		return err
	}
	text := r.Stdout
	if len(text) == 0 {
		text = r.Output
	}
	for _, word := range strings.Fields(string(text)) {
		booted, ok := strings.CutPrefix(word, "BOOTIF=")
		if !ok {
			continue
		}
		mac, ok := NormalMAC(strings.TrimPrefix(booted, "01-"))
		if !ok {
			return nil
		}
		all, err := tx.InterfacesOf([]int64{n.ID})
		if err != nil {
			return err
		}
		for _, i := range all {
			if i.MACAddress == mac && i.Type == "physical" && (n.BootInterfaceID == nil || *n.BootInterfaceID != i.ID) {
				n.BootInterfaceID = &i.ID
				if err := s.touchRevision(tx, n); err != nil {
					return err
				}
				return tx.UpdateNode(n)
			}
		}
	}
	return nil
}

// commissioned tells whether a commissioning went well: "" or the reason why it did not. Built-in scripts that nothing on the machine ran
// are skipped; others must have run.
func (s *Service) commissioned(tx *storage.Tx, n *storage.Node) (string, error) {
	const noInventory = "Commissioning ended without a usable inventory; see the results of its scripts."
	set, err := tx.CurrentScriptSet(n.ID, storage.SetCommissioning)
	if errors.Is(err, storage.ErrNotFound) {
		return noInventory, nil
	}
	if err != nil {
		return "", err
	}
	if err := tx.SkipBuiltins(set.ID); err != nil {
		return "", err
	}
	results, err := tx.ScriptResultsOf([]int64{set.ID}, false)
	if err != nil {
		return "", err
	}
	usable := false
	var missing, failed []string
	for _, r := range results {
		switch {
		case r.Suppressed:
		case storage.ScriptUnfinished(r.Status):
			missing = append(missing, runName(&r))
		case storage.ScriptHasFailed(r.Status) || r.Status == storage.ScriptAborted:
			failed = append(failed, runName(&r))
		}
		usable = usable || r.Name == InventoryScript && r.Status == storage.ScriptPassed
	}
	switch {
	case !usable:
		return noInventory, nil
	case len(failed) > 0:
		return clip("Commissioning scripts failed: " + strings.Join(failed, ", ") + "."), nil
	case len(missing) > 0:
		return clip("The machine did not run " + strings.Join(missing, ", ") + "."), nil
	}
	return "", nil
}

// tested tells whether the tests of a machine went well: "" or the reason why they did not.
func (s *Service) tested(tx *storage.Tx, n *storage.Node) (string, error) {
	set, err := tx.CurrentScriptSet(n.ID, storage.SetTesting)
	if errors.Is(err, storage.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	results, err := tx.ScriptResultsOf([]int64{set.ID}, false)
	if err != nil {
		return "", err
	}
	var missing, failed []string
	for _, r := range results {
		switch {
		case r.Suppressed:
		case storage.ScriptUnfinished(r.Status):
			missing = append(missing, runName(&r))
		case storage.ScriptHasFailed(r.Status):
			failed = append(failed, runName(&r))
		}
	}
	switch {
	case len(failed) > 0:
		return clip("Tests failed: " + strings.Join(failed, ", ") + "."), nil
	case len(missing) > 0:
		return clip("The machine did not run " + strings.Join(missing, ", ") + "."), nil
	}
	return "", nil
}
