package metadata

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/storage"
)

// scripts answers the archive of what a machine is to run: an index, the scripts, and what those that were started have printed.
func (h *Handler) scripts(ctx context.Context, n *storage.Node) (answer, error) {
	groups, err := h.p.Runnable(ctx, n.ID)
	if err != nil {
		return answer{}, err
	}
	if len(groups) == 0 {
		return answer{status: http.StatusNoContent, contentType: plain}, nil
	}
	var netplan []byte
	for _, g := range groups {
		if len(netplan) == 0 && slices.ContainsFunc(g, func(s provisioner.RunnableScript) bool { return s.ApplyNetwork }) {
			plan, err := h.p.NetworkPlan(ctx, n.ID)
			if err != nil {
				return answer{}, err
			}
			if netplan, err = yaml.Marshal(map[string]any{"network": plan}); err != nil {
				return answer{}, err
			}
		}
	}
	body, err := scriptsTar(groups, netplan, h.now())
	return answer{http.StatusOK, "application/x-tar", body}, err
}

// groupOrder is the order of the archive; groups that are not there are left out.
var groupOrder = []string{"commissioning_scripts", "testing_scripts", "release_scripts", "deployment_scripts"}

// netplanFile is where MAAS's runners look for the modelled network: beside the folder that they unpack the archive into.
const netplanFile = "../config/netplan.yaml"

func scriptsTar(groups map[string][]provisioner.RunnableScript, netplan []byte, now time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, mode int64, data []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), ModTime: now.Truncate(time.Second)}); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	index, err := json.Marshal(map[string]any{"1.0": groups})
	if err != nil {
		return nil, err
	}
	if err := add("index.json", 0o644, index); err != nil {
		return nil, err
	}
	if len(netplan) > 0 {
		if err := add(netplanFile, 0o600, netplan); err != nil {
			return nil, err
		}
	}
	written := map[string]bool{}
	for _, g := range groupOrder {
		for _, s := range groups[g] {
			if !written[s.Path] { // several runs of one script share its text
				written[s.Path] = true
				if err := add(s.Path, 0o755, s.Text); err != nil {
					return nil, err
				}
			}
			if !s.HasStarted {
				continue
			}
			base := "out/" + s.Name + "." + strconv.FormatInt(s.ScriptResultID, 10)
			for suffix, data := range map[string][]byte{"": s.Result.Output, ".out": s.Result.Stdout, ".err": s.Result.Stderr, ".yaml": s.Result.Result} {
				if err := add(base+suffix, 0o644, data); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
