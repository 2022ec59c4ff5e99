package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// ResultView is a script's result with the script, when that is still there.
type ResultView struct {
	storage.ScriptResult
	Script *storage.Script
}

// SetView is a script set with the results that were chosen of it.
type SetView struct {
	storage.ScriptSet
	SystemID string
	FQDN     string
	Status   int64 // of all its results, whatever was chosen
	Results  []ResultView
	Whole    []storage.ScriptResult // all its results, without outputs
}

// ResultFilter chooses results; nil and empty choose all.
type ResultFilter struct {
	Type     *int64
	Hardware *int64
	Names    []string // of scripts, tags, or ids of results
	Outputs  bool
}

func (f ResultFilter) wants(r *ResultView) bool {
	if f.Hardware != nil && (r.Script == nil || r.Script.HardwareType != *f.Hardware) {
		return false
	}
	return len(f.Names) == 0 || slices.ContainsFunc(f.Names, func(n string) bool {
		return n == r.Name || n == strconv.FormatInt(r.ID, 10) || r.Script != nil && slices.Contains(r.Script.Tags, n)
	})
}

// setTypeNames are the words for types of results.
var setTypeNames = []string{"commissioning", "installation", "testing", "release", "deployment"}

// ParseSetType reads a type of results in words or as a number.
func ParseSetType(word string) (int64, bool) {
	word = strings.ToLower(word)
	if i := slices.Index(setTypeNames, word); i >= 0 {
		return int64(i), true
	}
	n, err := strconv.ParseInt(word, 10, 64)
	return n, err == nil && n >= 0 && n < int64(len(setTypeNames))
}

// viewNode reads a node of any type that the caller may see.
func viewNode(ctx context.Context, tx *storage.Tx, systemID string) (storage.Node, error) {
	n, err := tx.Node(systemID)
	if err != nil {
		return n, found("Node", err)
	}
	return n, checkPerm(ctx, &n, permView)
}

func nodeFQDN(tx *storage.Tx, n *storage.Node) (string, error) {
	d, err := tx.Domain(n.DomainID)
	if errors.Is(err, storage.ErrNotFound) || d.Name == "" {
		return n.Hostname, nil
	}
	return n.Hostname + "." + d.Name, err
}

// views are script sets of one node with their chosen results, in a constant number of statements.
func views(tx *storage.Tx, n *storage.Node, sets []storage.ScriptSet, f ResultFilter) ([]SetView, error) {
	out := []SetView{}
	var ids []int64
	at := map[int64]int{}
	name, err := nodeFQDN(tx, n)
	if err != nil {
		return nil, err
	}
	for _, set := range sets {
		if f.Type != nil && set.Type != *f.Type {
			continue
		}
		at[set.ID] = len(out)
		out = append(out, SetView{ScriptSet: set, SystemID: n.SystemID, FQDN: name})
		ids = append(ids, set.ID)
	}
	scripts, err := tx.Scripts()
	if err != nil {
		return nil, err
	}
	byID := map[int64]*storage.Script{}
	for i := range scripts {
		byID[scripts[i].ID] = &scripts[i]
	}
	results, err := tx.ScriptResultsOf(ids, f.Outputs)
	if err != nil {
		return nil, err
	}
	counts := make([]map[int64]int, len(out))
	for _, r := range results {
		i := at[r.SetID]
		facts := r
		facts.Output, facts.Stdout, facts.Stderr, facts.Result = nil, nil, nil, nil
		out[i].Whole = append(out[i].Whole, facts)
		if counts[i] == nil {
			counts[i] = map[int64]int{}
		}
		if !r.Suppressed {
			counts[i][r.Status]++
		}
		v := ResultView{ScriptResult: r}
		if r.ScriptID != nil {
			v.Script = byID[*r.ScriptID]
		}
		if f.wants(&v) {
			out[i].Results = append(out[i].Results, v)
		}
	}
	for i := range out {
		out[i].Status = ScriptSetStatus(counts[i])
	}
	return out, nil
}

// ScriptSets lists the script sets of a node that the caller may see, newest first.
func (s *Service) ScriptSets(ctx context.Context, systemID string, f ResultFilter) (out []SetView, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := viewNode(ctx, tx, systemID)
		if err != nil {
			return err
		}
		sets, err := tx.ScriptSets(n.ID)
		if err != nil {
			return err
		}
		out, err = views(tx, &n, sets, f)
		return err
	})
	return out, err
}

// findSet reads a node's script set by number, or by one of the words for the current ones.
func findSet(tx *storage.Tx, n *storage.Node, spec string) (storage.ScriptSet, error) {
	if word, ok := strings.CutPrefix(spec, "current-"); ok && slices.Contains([]string{"commissioning", "installation", "testing"}, word) {
		typ, _ := ParseSetType(word)
		set, err := tx.CurrentScriptSet(n.ID, typ)
		if errors.Is(err, storage.ErrNotFound) {
			err = Errorf(Invalid, "%s has no %s results.", n.SystemID, word)
		}
		return set, err
	}
	id, err := strconv.ParseInt(spec, 10, 64)
	if err != nil {
		return storage.ScriptSet{}, Errorf(Invalid, "Unknown id: give a number, current-commissioning, current-testing or current-installation.")
	}
	set, err := tx.ScriptSet(id)
	if err == nil && set.NodeID != n.ID {
		err = storage.ErrNotFound
	}
	return set, found("ScriptSet", err)
}

// ScriptSet reads one script set of a node that the caller may see.
func (s *Service) ScriptSet(ctx context.Context, systemID, spec string, f ResultFilter) (out SetView, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := viewNode(ctx, tx, systemID)
		if err != nil {
			return err
		}
		out, err = oneView(tx, &n, spec, f)
		return err
	})
	return out, err
}

func oneView(tx *storage.Tx, n *storage.Node, spec string, f ResultFilter) (SetView, error) {
	set, err := findSet(tx, n, spec)
	if err != nil {
		return SetView{}, err
	}
	f.Type = nil
	list, err := views(tx, n, []storage.ScriptSet{set}, f)
	if err != nil {
		return SetView{}, err
	}
	return list[0], nil
}

// SuppressResults says whether the chosen results of a set count.
func (s *Service) SuppressResults(ctx context.Context, systemID, spec string, f ResultFilter, on *bool) (out SetView, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return out, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		n, err := viewNode(ctx, tx, systemID)
		if err != nil {
			return err
		}
		if out, err = oneView(tx, &n, spec, f); err != nil || on == nil {
			return err
		}
		var ids []int64
		for _, r := range out.Results {
			ids = append(ids, r.ID)
		}
		if err := tx.SetSuppressed(ids, *on); err != nil {
			return err
		}
		out, err = oneView(tx, &n, strconv.FormatInt(out.ID, 10), f)
		return err
	})
	return out, err
}

// DeleteScriptSet removes a script set. What a machine's commissioning and installation rest on stays.
func (s *Service) DeleteScriptSet(ctx context.Context, systemID, spec string) error {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		n, err := viewNode(ctx, tx, systemID)
		if err != nil {
			return err
		}
		set, err := findSet(tx, &n, spec)
		if err != nil {
			return err
		}
		if set.Type == storage.SetCommissioning || set.Type == storage.SetInstallation {
			current, err := tx.CurrentScriptSet(n.ID, set.Type)
			if err != nil {
				return err
			}
			if current.ID == set.ID {
				return Errorf(Invalid, "Unable to delete current %s ScriptSet.", setTypeNames[set.Type])
			}
		}
		return tx.DeleteScriptSet(set.ID)
	})
}

// OldResult is a result of a current script set, as the old resources show it.
type OldResult struct {
	storage.ScriptResult
	SystemID string
	Type     int64
}

// OldResults lists the results of the current commissioning, installation and testing of all nodes that the caller may see.
func (s *Service) OldResults(ctx context.Context, systemIDs, names []string, typ *int64) ([]OldResult, error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	out := []OldResult{}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		f := storage.NodeFilter{SystemIDs: systemIDs, Seen: a.sees()}
		nodes, err := tx.Nodes(f)
		if err != nil {
			return err
		}
		of := map[int64]string{}
		for _, n := range nodes {
			of[n.ID] = n.SystemID
		}
		sets, err := tx.CurrentScriptSets(f)
		if err != nil {
			return err
		}
		byID := map[int64]storage.ScriptSet{}
		ids := []int64{}
		for _, set := range sets {
			if set.Type <= storage.SetTesting && (typ == nil || *typ == set.Type) {
				byID[set.ID] = set
				ids = append(ids, set.ID)
			}
		}
		results, err := tx.ScriptResultsOf(ids, true)
		for _, r := range results {
			if storage.ScriptUnfinished(r.Status) || len(names) > 0 && !slices.Contains(names, r.Name) {
				continue
			}
			out = append(out, OldResult{r, of[byID[r.SetID].NodeID], byID[r.SetID].Type})
		}
		slices.SortFunc(out, func(x, y OldResult) int { return int(x.ID - y.ID) })
		return err
	})
	return out, err
}

// Details are the documents that a node's hardware is described by; nil for those that there are not. types restricts the types of nodes.
func (s *Service) Details(ctx context.Context, systemID string, types ...int64) (lshw, lldp []byte, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := viewNode(ctx, tx, systemID)
		if err != nil {
			return err
		}
		if len(types) > 0 && !slices.Contains(types, n.NodeType) {
			return noMatch(nodeModel(types))
		}
		return tx.EachHardwareDocuments([]int64{n.ID}, func(d storage.HardwareDocuments) error {
			if d.LSHW != "" {
				lshw = []byte(d.LSHW)
			}
			if d.LLDP != "" {
				lldp = []byte(d.LLDP)
			}
			return nil
		})
	})
	return lshw, lldp, err
}

// nodeModel is the name of a kind of node in "No X matches the given query."
func nodeModel(types []int64) string {
	switch types[0] {
	case storage.NodeMachine:
		return "Machine"
	case storage.NodeDevice:
		return "Device"
	case storage.NodeRegion:
		return "RegionController"
	}
	return "RackController"
}

// MachineToken are a machine's own credentials, for administrators; nil when it has none.
func (s *Service) MachineToken(ctx context.Context, systemID string) (token *storage.NodeToken, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		token = nil
		n, err := tx.Node(systemID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && n.NodeType != storage.NodeMachine {
			return errNoMachine
		}
		if err != nil {
			return err
		}
		if err := checkPerm(ctx, &n, permAdminRead); err != nil {
			return err
		}
		t, err := tx.NodeToken(n.ID)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		token = &t
		return err
	})
	return token, err
}

// ActionInProgress tells whether a node that has one of the addresses is being commissioned or deployed.
func (s *Service) ActionInProgress(ctx context.Context, macs string) (bool, error) {
	busy := false
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		busy = false
		for _, part := range strings.Split(macs, ",") {
			mac, ok := NormalMAC(part)
			if !ok {
				continue
			}
			n, err := tx.NodeByMAC(mac)
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			busy = busy || in(n.Status, storage.StatusCommissioning, storage.StatusDeploying)
		}
		return nil
	})
	return busy, err
}

// Runnable are the scripts that wait for a machine, for whatever runs them there, by group of index.json.
func (s *Service) Runnable(ctx context.Context, nodeID int64) (out map[string][]RunnableScript, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := tx.NodeByID(nodeID)
		if err != nil {
			return err
		}
		out, err = runnable(tx, &n)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("scripts of a machine: %w", err)
	}
	return out, nil
}
