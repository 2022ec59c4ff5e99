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

// ScriptWithHistory is a script and the texts it has had, newest first.
type ScriptWithHistory struct {
	storage.Script
	History []storage.ScriptVersion
}

// ScriptFilter chooses scripts; nil chooses all.
type ScriptFilter struct {
	Type, HardwareType *int64
	Names              []string // names or tags
}

// Scripts lists scripts by name. withTexts adds the texts of their history.
func (s *Service) Scripts(ctx context.Context, f ScriptFilter, withTexts bool) ([]ScriptWithHistory, error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	out := []ScriptWithHistory{}
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		all, err := tx.Scripts()
		if err != nil {
			return err
		}
		var ids []int64
		for _, x := range all {
			if f.Type != nil && x.Type != *f.Type || f.HardwareType != nil && x.HardwareType != *f.HardwareType ||
				len(f.Names) > 0 && !slices.ContainsFunc(f.Names, func(n string) bool { return n == x.Name || slices.Contains(x.Tags, n) }) {
				continue
			}
			out = append(out, ScriptWithHistory{Script: x})
			ids = append(ids, x.ID)
		}
		versions, err := tx.ScriptVersions(ids, withTexts)
		for i := range out {
			out[i].History = versions[out[i].ID]
		}
		return err
	})
	return out, err
}

// findScript reads a script by id or name.
func findScript(tx *storage.Tx, spec string) (storage.Script, error) {
	if id, err := strconv.ParseInt(spec, 10, 64); err == nil {
		x, err := tx.Script(id)
		return x, found("Script", err)
	}
	x, err := tx.ScriptByName(spec)
	return x, found("Script", err)
}

func withHistory(tx *storage.Tx, x storage.Script, texts bool) (ScriptWithHistory, error) {
	v, err := tx.ScriptVersions([]int64{x.ID}, texts)
	return ScriptWithHistory{x, v[x.ID]}, err
}

// Script reads a script by id or name.
func (s *Service) Script(ctx context.Context, spec string, withTexts bool) (out ScriptWithHistory, err error) {
	if _, err := needUser(ctx); err != nil {
		return out, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		x, err := findScript(tx, spec)
		if err != nil {
			return err
		}
		out, err = withHistory(tx, x, withTexts)
		return err
	})
	return out, err
}

// CreateScript adds a script.
func (s *Service) CreateScript(ctx context.Context, in ScriptInput) (out ScriptWithHistory, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return out, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		x := storage.Script{Type: storage.SetTesting}
		if err := in.apply(&x, true); err != nil {
			return err
		}
		if err := taken("Script", "name", "Name", tx.InsertScript(&x, in.Comment)); err != nil {
			return err
		}
		out, err = withHistory(tx, x, false)
		return err
	})
	return out, err
}

// changeScript runs fn on a script as somebody who may change it, and returns the script as it is then.
func (s *Service) changeScript(ctx context.Context, spec string, fn func(tx *storage.Tx, x *storage.Script) error) (out ScriptWithHistory, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return out, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		x, err := findScript(tx, spec)
		if err != nil {
			return err
		}
		if err := fn(tx, &x); err != nil {
			return err
		}
		if x, err = tx.Script(x.ID); err != nil {
			return err
		}
		out, err = withHistory(tx, x, false)
		return err
	})
	return out, err
}

// UpdateScript changes a script. A new text becomes a new version.
func (s *Service) UpdateScript(ctx context.Context, spec string, in ScriptInput) (ScriptWithHistory, error) {
	return s.changeScript(ctx, spec, func(tx *storage.Tx, x *storage.Script) error {
		before := x.Content
		if err := in.apply(x, false); err != nil {
			return err
		}
		if err := taken("Script", "name", "Name", tx.UpdateScript(x)); err != nil {
			return err
		}
		if string(x.Content) == string(before) {
			return nil
		}
		return tx.AddScriptVersion(x, in.Comment)
	})
}

// DeleteScript removes a script. Those that come with the program stay.
func (s *Service) DeleteScript(ctx context.Context, spec string) error {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		x, err := findScript(tx, spec)
		if err != nil {
			return err
		}
		if x.IsDefault {
			return Errorf(Invalid, "Unable to delete default script")
		}
		return tx.DeleteScript(x.ID)
	})
}

// ScriptText is a text of a script: the current one, or that of a revision.
func (s *Service) ScriptText(ctx context.Context, spec string, revision *int64) (text []byte, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		x, err := findScript(tx, spec)
		if err != nil || revision == nil {
			text = x.Content
			return err
		}
		versions, err := tx.ScriptVersions([]int64{x.ID}, true)
		if err != nil {
			return err
		}
		for _, v := range versions[x.ID] {
			if v.ID == *revision {
				text = v.Content
				return nil
			}
		}
		return Errorf(Invalid, "%d not found in history", *revision)
	})
	return text, err
}

// RevertScript makes an earlier text the current one and forgets those after it. to is a revision, or how many steps to go back as
// a negative number.
func (s *Service) RevertScript(ctx context.Context, spec string, to int64) (ScriptWithHistory, error) {
	return s.changeScript(ctx, spec, func(tx *storage.Tx, x *storage.Script) error {
		if x.IsDefault {
			return Errorf(Invalid, "Unable to revert default script")
		}
		versions, err := tx.ScriptVersions([]int64{x.ID}, true)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(versions[x.ID], func(v storage.ScriptVersion) bool { return v.ID == to })
		if to <= 0 {
			if i = -1; -to < int64(len(versions[x.ID])) && to > -1<<31 {
				i = int(-to)
			}
		}
		if i < 0 {
			return Errorf(Invalid, "%d not found in history", to)
		}
		v := versions[x.ID][i]
		// What the text says of itself holds again.
		if err := (ScriptInput{Content: v.Content}).apply(x, false); err != nil {
			return err
		}
		if err := taken("Script", "name", "Name", tx.UpdateScript(x)); err != nil {
			return err
		}
		return tx.RevertScript(x.ID, v.ID)
	})
}

// AddScriptTag gives a script a tag.
func (s *Service) AddScriptTag(ctx context.Context, spec, tag string) (ScriptWithHistory, error) {
	if strings.Contains(tag, ",") {
		return ScriptWithHistory{}, Errorf(Invalid, `Tag may not contain a ",".`)
	}
	return s.changeScript(ctx, spec, func(tx *storage.Tx, x *storage.Script) error {
		if err := (ScriptInput{Tags: append(slices.Clone(x.Tags), tag)}).apply(x, false); err != nil {
			return err
		}
		return tx.UpdateScript(x)
	})
}

// RemoveScriptTag takes a tag from a script.
func (s *Service) RemoveScriptTag(ctx context.Context, spec, tag string) (ScriptWithHistory, error) {
	return s.changeScript(ctx, spec, func(tx *storage.Tx, x *storage.Script) error {
		tags := slices.DeleteFunc(slices.Clone(x.Tags), func(t string) bool { return t == tag })
		if err := (ScriptInput{Tags: append([]string{}, tags...)}).apply(x, false); err != nil {
			return err
		}
		return tx.UpdateScript(x)
	})
}

// loadBuiltins stores the scripts that come with the program. A changed text becomes a new version, unless a script has had it before.
func (s *Service) loadBuiltins(ctx context.Context) error {
	texts, err := shippedScripts()
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		all, err := tx.Scripts()
		if err != nil {
			return err
		}
		known := map[string]storage.Script{}
		for _, x := range all {
			known[x.Name] = x
		}
		for _, text := range texts {
			fresh := storage.Script{Type: storage.SetTesting, IsDefault: true}
			if err := (ScriptInput{Content: []byte(text)}).apply(&fresh, true); err != nil {
				return fmt.Errorf("built-in script: %w", err)
			}
			x, ok := known[fresh.Name]
			if !ok {
				if err := tx.InsertScript(&fresh, nil); err != nil && !errors.Is(err, storage.ErrConflict) {
					return err
				}
				continue
			}
			if !x.IsDefault {
				continue // somebody's script had the name first
			}
			versions, err := tx.ScriptVersions([]int64{x.ID}, true)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(versions[x.ID], func(v storage.ScriptVersion) bool { return string(v.Content) == text }) {
				continue
			}
			fresh.ID, fresh.Created, fresh.Tags, fresh.Timeout = x.ID, x.Created, x.Tags, x.Timeout
			if err := tx.UpdateScript(&fresh); err != nil {
				return err
			}
			if err := tx.AddScriptVersion(&fresh, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// The names of the built-in scripts that mean something to the rules.
const (
	scriptBMC        = "30-maas-01-bmc-config"
	scriptCmdline    = "maas-kernel-cmdline"
	scriptModaliases = "maas-list-modaliases"
)

// builtinScripts are the texts of the scripts that come with the program, in MAAS's format and under MAAS's names. Ingot's agent
// does the work of the first three itself; other runners run the text.
var builtinScripts = []string{
	`#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: 50-maas-01-commissioning
# title: Hardware inventory
# description: What the machine is made of; fills the machine's page.
# script_type: commissioning
# tags: deploy-info
# parallel: disabled
# timeout: 300
# --- End MAAS 1.0 script metadata ---
set -eu
@fetch-agent@
"$AGENT" inventory
`,
	`#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: 30-maas-01-bmc-config
# title: Management controller
# description: Finds the BMC and makes an account on it. Only Ingot's agent can.
# script_type: commissioning
# tags: bmc-config
# parallel: disabled
# timeout: 300
# --- End MAAS 1.0 script metadata ---
set -eu
echo "Only the light environment's agent sets up a BMC."
[ -z "${RESULT_PATH:-}" ] || echo "status: skipped" > "$RESULT_PATH"
`,
	`#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: maas-kernel-cmdline
# title: Kernel command line
# description: How the kernel was started.
# script_type: commissioning
# parallel: any
# timeout: 10
# --- End MAAS 1.0 script metadata ---
cat /proc/cmdline
`,
	`#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: maas-lshw
# title: List of hardware
# description: What lshw says, as XML; definitions of tags are evaluated on it.
# script_type: commissioning
# tags: deploy-info
# parallel: any
# timeout: 300
# --- End MAAS 1.0 script metadata ---
set -eu
if ! command -v lshw >/dev/null 2>&1; then
    echo "This environment has no lshw." >&2
    echo "status: skipped" > "$RESULT_PATH"
    exit 0
fi
lshw -xml
`,
	`#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: maas-list-modaliases
# title: Kernel names of the hardware
# description: What drivers are chosen by; scripts for certain hardware are, too.
# script_type: commissioning
# tags: deploy-info
# parallel: any
# timeout: 10
# --- End MAAS 1.0 script metadata ---
find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u
`,
	`#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: maas-capture-lldpd
# title: Neighbours on the network
# description: What lldpd has heard, as XML; definitions of tags are evaluated on it.
# script_type: commissioning
# parallel: any
# timeout: 60
# --- End MAAS 1.0 script metadata ---
set -eu
if ! command -v lldpctl >/dev/null 2>&1 || ! lldpctl >/dev/null 2>&1; then
    echo "No lldpd runs in this environment." >&2
    echo "status: skipped" > "$RESULT_PATH"
    exit 0
fi
sleep 45 # neighbours speak every 30 seconds
lldpctl -f xml
`,
}
