package provisioner

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// scriptParam is what a script's metadata says of one of its parameters.
type scriptParam struct {
	Type           string   `json:"type"`
	Min            *float64 `json:"min"`
	Max            *float64 `json:"max"`
	Title          string   `json:"title"`
	Description    string   `json:"description"`
	ArgumentFormat string   `json:"argument_format"`
	Default        any      `json:"default"`
	Required       *bool    `json:"required"`
	AllowList      bool     `json:"allow_list"`
	Choices        []any    `json:"choices"`
}

var paramTypes = []string{"storage", "interface", "runtime", "url", "string", "password", "choice", "boolean"}

// deviceParam tells whether a parameter names devices: the script runs once for each.
func deviceParam(typ string) bool { return typ == "storage" || typ == "interface" }

// scriptParams reads a script's parameters. They were checked when the script was stored.
func scriptParams(raw json.RawMessage) map[string]scriptParam {
	out := map[string]scriptParam{}
	var loose map[string]json.RawMessage
	if len(raw) == 0 || json.Unmarshal(raw, &loose) != nil {
		return out
	}
	for name, r := range loose {
		var p scriptParam
		if json.Unmarshal(r, &p) == nil {
			out[name] = p
		}
	}
	return out
}

// checkParameters says what is wrong with the parameters of a metadata block.
func checkParameters(doc map[string]any) []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(doc)) {
		short := clip(name)
		m, ok := doc[name].(map[string]any)
		if !ok {
			add("parameter %s must be a dictionary", short)
			continue
		}
		typ, _ := m["type"].(string)
		if !slices.Contains(paramTypes, typ) {
			add("%s: type must be either %s", short, strings.Join(paramTypes, ", "))
			continue
		}
		for _, k := range []string{"min", "max"} {
			switch v := m[k].(type) {
			case nil, int, float64:
				if v != nil && (deviceParam(typ) || typ == "choice" || typ == "boolean" || typ == "url") {
					add("%s: %s not supported for type %s", short, k, typ)
				}
			default:
				add("%s: %s must be an integer", short, k)
			}
		}
		for _, k := range []string{"title", "description", "argument_format"} {
			if _, ok := m[k].(string); m[k] != nil && !ok {
				add("%s: %s must be a string", short, k)
			}
		}
		for _, k := range []string{"required", "allow_list"} {
			if _, ok := m[k].(bool); m[k] != nil && !ok {
				add("%s: %s must be a boolean", short, k)
			}
		}
		if m["allow_list"] == true && typ != "url" {
			add("%s: allow_list only supported with the url type.", short)
		}
		if _, ok := m["choices"].([]any); m["choices"] != nil && !ok || typ == "choice" && !ok {
			add("%s: choices must be given for a \"choice\" parameter type!", short)
		}
		if format, _ := m["argument_format"].(string); format != "" && typ != "boolean" {
			marks := map[string][]string{"storage": {"{input}", "{name}", "{path}", "{model}", "{serial}"},
				"interface": {"{input}", "{name}", "{mac}", "{vendor}", "{product}"}}[typ]
			if marks == nil {
				marks = []string{"{input}"}
			}
			if !slices.ContainsFunc(marks, func(s string) bool { return strings.Contains(format, s) }) {
				add("%s: argument_format must contain one of %s", short, strings.Join(marks, ", "))
			}
		}
		if len(out) == 0 {
			b := rawJSON(m)
			var p scriptParam
			if json.Unmarshal(b, &p) != nil {
				add("%s: cannot be read", short)
			} else if p.Default != nil && !deviceParam(typ) {
				if _, problem := p.value(fmt.Sprint(p.Default)); problem != "" {
					add("%s: default: %s", short, problem)
				}
			}
		}
	}
	return out
}

// value checks the text that was given for a parameter that names no devices, and makes a value of it.
func (p scriptParam) value(text string) (any, string) {
	switch p.Type {
	case "runtime":
		d, ok := ParseSeconds(text)
		n := d.Seconds()
		switch {
		case !ok:
			return nil, "Must be an int"
		case p.Min != nil && n < *p.Min:
			return nil, fmt.Sprintf("Must be greater than %v", *p.Min)
		case p.Max != nil && n > *p.Max:
			return nil, fmt.Sprintf("Must be less than %v", *p.Max)
		}
		return int64(n), ""
	case "url":
		list := []string{text}
		if p.AllowList {
			list = strings.Split(text, ",")
		}
		for _, one := range list {
			u, err := url.Parse(strings.TrimSpace(one))
			if err != nil || strings.TrimSpace(one) == "" || u.Scheme != "" && u.Host == "" && u.Opaque == "" {
				return nil, "Must be a valid URL"
			}
		}
		return text, ""
	case "string", "password":
		n := float64(len([]rune(text)))
		switch {
		case p.Min != nil && n < *p.Min:
			return nil, "Input too short"
		case p.Max != nil && n > *p.Max:
			return nil, "Input too long"
		}
		return text, ""
	case "choice":
		for _, c := range p.Choices {
			if l, ok := c.([]any); ok && len(l) > 0 {
				c = l[0]
			}
			if fmt.Sprint(c) == text {
				return text, ""
			}
		}
		return nil, fmt.Sprintf(`Invalid choice "%s"`, clip(text))
	case "boolean":
		switch strings.ToLower(text) {
		case "true", "yes", "on", "1", "t", "y":
			return true, ""
		case "false", "no", "off", "0", "f", "n", "":
			return false, ""
		}
		return nil, "Must be true or false"
	}
	return text, ""
}

// devices are what device parameters choose from.
type scriptDevices struct {
	disks []storage.BlockDevice
	nics  []storage.InterfaceBundle
	boot  *int64 // the boot interface, for machines without a configured one
	known bool   // false while an inventory is to come: a placeholder then stands for the devices
}

// assignment is one run of a script: its values, and which device it is for.
type assignment struct {
	values   map[string]map[string]any
	instance string
}

// runs works out the runs of a script from what was asked for: one, or one a device.
func scriptRuns(x *storage.Script, given map[string]string, dev *scriptDevices) ([]assignment, error) {
	params := scriptParams(x.Parameters)
	for key := range given {
		if name, ok := strings.CutPrefix(key, x.Name+"_"); ok && params[name].Type == "" {
			return nil, FieldError("parameters", "Unknown parameter '%s' for %s", clip(name), x.Name)
		}
	}
	out := []assignment{{values: map[string]map[string]any{}}}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		p := params[name]
		text, asked := given[x.Name+"_"+name]
		if !asked {
			text, asked = given[name]
		}
		if !asked || text == "" {
			switch {
			case p.Default != nil:
				text, asked = fmt.Sprint(p.Default), true
			case deviceParam(p.Type):
				text, asked = "all", true
			case p.Type == "runtime" && x.Timeout > 0:
				text, asked = strconv.FormatInt(int64(x.Timeout.Seconds()), 10), true
			}
		}
		if !asked {
			if (p.Required == nil || *p.Required) && p.Type != "boolean" {
				return nil, FieldError(x.Name+"_"+name, "Field is required")
			}
			continue
		}
		if !deviceParam(p.Type) {
			v, problem := p.value(text)
			if problem != "" {
				return nil, FieldError(x.Name+"_"+name, "%s", problem)
			}
			if v == false {
				continue
			}
			for _, a := range out {
				a.values[name] = p.stored(v)
			}
			continue
		}
		var err error
		if out, err = p.spread(x, name, text, out, dev); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// stored is a value in the form that runners read.
func (p scriptParam) stored(v any) map[string]any {
	out := map[string]any{"type": p.Type, "value": v}
	if p.ArgumentFormat != "" {
		out["argument_format"] = p.ArgumentFormat
	}
	return out
}

const maxRuns = 512 // of one script on one machine

// spread makes one run for each device that a text chooses.
func (p scriptParam) spread(x *storage.Script, name, text string, runs []assignment, dev *scriptDevices) ([]assignment, error) {
	var values []any
	var keys []string
	if dev.known {
		if p.Type == "storage" {
			values, keys = dev.chooseDisks(text)
		} else {
			values, keys = dev.chooseNICs(text)
		}
		if len(values) == 0 && text != "all" {
			what := map[string]string{"storage": "storage device", "interface": "interface"}[p.Type]
			return nil, FieldError(x.Name+"_"+name, "Unknown %s for %s", what, clip(text))
		}
	}
	if len(values) == 0 {
		values, keys = []any{text}, []string{""}
	}
	var out []assignment
	for _, a := range runs {
		for i, v := range values {
			if len(out) == maxRuns {
				return out, nil
			}
			b := assignment{maps.Clone(a.values), strings.TrimPrefix(a.instance+" "+keys[i], " ")}
			b.values[name] = p.stored(v)
			out = append(out, b)
		}
	}
	return out, nil
}

// chosen tells whether one of the words of a text names a device by its id, one of its names or one of its tags.
func chosen(text string, id int64, names, tags []string) bool {
	if strings.EqualFold(text, "all") {
		return true
	}
	for _, word := range strings.Split(text, ",") {
		if word = strings.TrimSpace(word); word != "" && (word == strconv.FormatInt(id, 10) || slices.Contains(names, word) || slices.Contains(tags, word)) {
			return true
		}
	}
	return false
}

func (d *scriptDevices) chooseDisks(text string) (values []any, keys []string) {
	for _, b := range d.disks {
		model, serial := deref(b.Model, ""), deref(b.Serial, "")
		names := []string{b.Name, "/dev/" + b.Name}
		for _, n := range []string{serial, model, model + ":" + serial} {
			if n != "" && n != ":" {
				names = append(names, n)
			}
		}
		if b.Type != "physical" || !chosen(text, b.ID, names, b.Tags) {
			continue
		}
		values = append(values, map[string]any{"id": b.ID, "physical_id": b.ID, "name": b.Name, "id_path": deref(b.IDPath, ""), "model": model, "serial": serial})
		keys = append(keys, "disk:"+b.Name)
	}
	return values, keys
}

// configured tells whether an interface is one to test: enabled, nobody's parent, with a link that gives it an address.
func configured(i *storage.InterfaceBundle) bool {
	return i.Interface.Enabled && len(i.Children) == 0 && slices.ContainsFunc(i.Links, func(l storage.IPAddress) bool {
		return l.AllocType != storage.AllocDiscovered && (l.IP.IsValid() || l.AllocType == storage.AllocAuto || l.AllocType == storage.AllocDHCP)
	})
}

func (d *scriptDevices) chooseNICs(text string) (values []any, keys []string) {
	var list []*storage.InterfaceBundle
	for i := range d.nics {
		if configured(&d.nics[i]) {
			list = append(list, &d.nics[i])
		}
	}
	if len(list) == 0 && d.boot != nil {
		for i := range d.nics {
			if d.nics[i].ID == *d.boot {
				list = append(list, &d.nics[i])
			}
		}
	}
	for _, i := range list {
		vendor, product := deref(i.Vendor, ""), deref(i.Product, "")
		names := []string{i.Name, i.MACAddress}
		for _, n := range []string{vendor, product, vendor + ":" + product} {
			if n != "" && n != ":" {
				names = append(names, n)
			}
		}
		if !chosen(text, i.ID, names, i.Tags) {
			continue
		}
		values = append(values, map[string]any{"id": i.ID, "name": i.Name, "mac_address": i.MACAddress, "vendor": vendor, "product": product})
		keys = append(keys, "interface:"+i.Name)
	}
	return values, keys
}

// waitsForDevices tells whether a stored run is a placeholder for devices that were not known yet, and what it was to choose.
func waitsForDevices(raw json.RawMessage) (map[string]string, bool) {
	var values map[string]map[string]any
	if len(raw) == 0 || json.Unmarshal(raw, &values) != nil {
		return nil, false
	}
	given, waits := map[string]string{}, false
	for name, v := range values {
		typ, _ := v["type"].(string)
		text, isText := v["value"].(string)
		if deviceParam(typ) && isText {
			waits = true
		} else if !isText {
			text = fmt.Sprint(v["value"])
			if n, ok := v["value"].(float64); ok {
				text = strconv.FormatFloat(n, 'f', -1, 64)
			}
		}
		given[name] = text
	}
	return given, waits
}

// ShownParameters are a result's parameters as the API shows them: passwords are not.
func ShownParameters(raw json.RawMessage) map[string]any {
	out := map[string]any{}
	if len(raw) > 0 {
		_ = json.Unmarshal(raw, &out) // the store holds what scriptRuns wrote
	}
	for _, v := range out {
		if m, ok := v.(map[string]any); ok && m["type"] == "password" {
			m["value"] = "REDACTED"
		}
	}
	return out
}
