package provisioner

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/storage"
)

// ScriptInput is what a request says of a script: nil leaves a field as it is.
type ScriptInput struct {
	Name, Title, Description     *string
	Type, HardwareType, Parallel *string // in words or numbers
	Timeout                      *string // seconds, or [D ]HH:MM:SS
	Tags, ForHardware            []string
	Packages                     *string // JSON
	Destructive, MayReboot       *bool
	Recommission, ApplyNetwork   *bool
	Comment                      *string
	Content                      []byte
}

// The hardware types of scripts, and of node devices.
const (
	HardwareNode = iota
	HardwareCPU
	HardwareMemory
	HardwareStorage
	HardwareNetwork
	HardwareGPU
)

// hardwareNames are the tags that say what a script is about.
var hardwareNames = []string{"node", "cpu", "memory", "storage", "network", "gpu"}

// scriptWords are the words that a field of a script takes, with the numbers that the API shows.
var (
	scriptTypeWords = map[string]int64{"0": 0, "commissioning": 0, "commission": 0, "2": 2, "testing": 2, "test": 2, "3": 3, "release": 3, "4": 4, "deployment": 4}
	hardwareWords   = map[string]int64{"0": 0, "node": 0, "machine": 0, "controller": 0, "other": 0, "generic": 0, "1": 1, "cpu": 1, "processor": 1,
		"2": 2, "memory": 2, "ram": 2, "3": 3, "storage": 3, "disk": 3, "ssd": 3, "4": 4, "network": 4, "net": 4, "interface": 4, "5": 5, "gpu": 5, "graphics": 5}
	parallelWords = map[string]int64{"0": 0, "disabled": 0, "none": 0, "1": 1, "instance": 1, "name": 1, "2": 2, "any": 2, "enabled": 2}
)

// ParseScriptType, ParseHardwareType and their like read a filter; ok is false for an unknown word.
func ParseScriptType(word string) (int64, bool) {
	n, ok := scriptTypeWords[strings.ToLower(word)]
	return n, ok
}

// ParseHardwareType reads a hardware type in words or as a number.
func ParseHardwareType(word string) (int64, bool) {
	n, ok := hardwareWords[strings.ToLower(word)]
	return n, ok
}

const (
	msgEmbedded    = "May not override values defined in embedded YAML."
	msgDefault     = "Not allowed to change on default scripts."
	maxScript      = 4 << 20
	maxScriptTags  = 100
	maxScriptField = 64 << 10 // of a JSON field
)

var (
	metadataStart = regexp.MustCompile(`(?i)^\s*#\s*-+\s*Start MAAS ([0-9]+\.[0-9]+) script metadata\s+-+`)
	metadataEnd   = regexp.MustCompile(`(?i)^\s*#\s*-+\s*End MAAS ([0-9]+\.[0-9]+) script metadata\s+-+`)
	scriptNameBad = regexp.MustCompile(`[^A-Za-z0-9@%_+=:,./-]`) // what a shell would want quoted
	scriptTagBad  = regexp.MustCompile(`[,\s\x00-\x1f]`)
	hardwareID    = regexp.MustCompile(`^(?i:modalias:.+|(?:pci|usb):[0-9a-f]{4}:[0-9a-f]{4}|(?:system_vendor|system_product|system_version|mainboard_vendor|mainboard_product):.+)$`)
	daysTime      = regexp.MustCompile(`^(?:(\d{1,4})\s+(?:days?,?\s*)?)?(?:(\d{1,5}):)?(\d{1,2}):(\d{1,2})$`)
)

// embeddedMetadata takes the metadata block out of a script's text: nil when there is none.
func embeddedMetadata(content []byte) (map[string]any, string) {
	if !bytes.HasPrefix(content, []byte("#!/")) {
		return nil, "Must start with shebang."
	}
	if !utf8.Valid(content) {
		return nil, "" // a program with a shebang of its own making: no block in it
	}
	lines := strings.Split(string(content), "\n")[1:]
	start := slices.IndexFunc(lines, func(l string) bool { return metadataStart.MatchString(l) })
	if start < 0 || metadataStart.FindStringSubmatch(lines[start])[1] != "1.0" {
		return nil, ""
	}
	var block strings.Builder
	for _, line := range lines[start+1:] {
		if metadataEnd.MatchString(line) {
			return parseBlock(block.String())
		}
		if strings.TrimSpace(line) == "" {
			continue
		}
		_, text, ok := strings.Cut(line, "#")
		if !ok {
			return nil, `Missing "#" on YAML line.`
		}
		block.WriteString(text + "\n")
	}
	return nil, ""
}

func parseBlock(text string) (map[string]any, string) {
	if len(text) > maxScriptField {
		return nil, "Invalid YAML: the metadata is too long"
	}
	var loose any
	if err := yaml.Unmarshal([]byte(text), &loose); err != nil {
		return nil, "Invalid YAML: " + clip(err.Error())
	}
	if loose == nil {
		return map[string]any{}, ""
	}
	doc, ok := plain(loose, 0).(map[string]any)
	if !ok {
		return nil, "Invalid YAML: the metadata is not a mapping"
	}
	return doc, ""
}

// plain makes of what YAML gives what JSON can write: keys are text, numbers are finite.
func plain(v any, depth int) any {
	if depth > 20 {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			out[k] = plain(x, depth+1)
		}
		return out
	case map[any]any:
		out := map[string]any{}
		for k, x := range v {
			out[fmt.Sprint(k)] = plain(x, depth+1)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = plain(x, depth+1)
		}
		return out
	case time.Time:
		return v.Format(time.RFC3339)
	case float64:
		if v-v != 0 {
			return fmt.Sprint(v)
		}
	case string, bool, int, nil:
	default:
		return fmt.Sprint(v)
	}
	return v
}

// scriptForm checks a request against the block of the script's text and writes it into a script.
type scriptForm struct {
	form
	in     ScriptInput
	block  map[string]any
	create bool
}

// apply checks in and sets what it says. It does not look into the store: names are checked by the caller.
func (in ScriptInput) apply(s *storage.Script, create bool) error {
	x := &scriptForm{form: form{}, in: in, create: create}
	if s.IsDefault && !create {
		return x.applyDefault(s)
	}
	switch {
	case in.Content != nil && len(in.Content) > maxScript:
		x.add("script", "A script has at most %d bytes.", maxScript)
	case in.Content != nil:
		var problem string
		if x.block, problem = embeddedMetadata(in.Content); problem != "" {
			x.add("script", "%s", problem)
		}
		s.Content = in.Content
	case create:
		x.add("script", msgRequired)
	default:
		x.block, _ = embeddedMetadata(s.Content)
	}
	x.name(s)
	x.str("title", "title", in.Title, &s.Title, 255)
	x.str("description", "description", in.Description, &s.Description, descriptionLimit)
	x.choice("type", "script_type", in.Type, scriptTypeWords, &s.Type)
	x.choice("hardware_type", "hardware_type", in.HardwareType, hardwareWords, &s.HardwareType)
	x.choice("parallel", "parallel", in.Parallel, parallelWords, &s.Parallel)
	x.flag("destructive", in.Destructive, &s.Destructive)
	x.flag("may_reboot", in.MayReboot, &s.MayReboot)
	x.flag("recommission", in.Recommission, &s.Recommission)
	x.flag("apply_configured_networking", in.ApplyNetwork, &s.ApplyNetwork)
	x.timeout(s)
	x.tags(s)
	x.forHardware(s)
	x.packages(s)
	x.results(s)
	x.parameters(s)
	return x.err()
}

// applyDefault lets a script that comes with the program change in its tags and its timeout only.
func (x *scriptForm) applyDefault(s *storage.Script) error {
	in := x.in
	for field, given := range map[string]bool{"name": in.Name != nil && *in.Name != s.Name, "title": in.Title != nil && *in.Title != s.Title,
		"description": in.Description != nil && *in.Description != s.Description, "type": in.Type != nil, "hardware_type": in.HardwareType != nil,
		"parallel": in.Parallel != nil, "for_hardware": in.ForHardware != nil, "packages": in.Packages != nil, "destructive": in.Destructive != nil,
		"may_reboot": in.MayReboot != nil, "recommission": in.Recommission != nil, "apply_configured_networking": in.ApplyNetwork != nil,
		"script": in.Content != nil} {
		if given {
			x.add(field, msgDefault)
		}
	}
	x.timeout(s)
	x.tags(s)
	return x.err()
}

func (x *scriptForm) name(s *storage.Script) {
	given, embedded := x.in.Name, x.text("name")
	if embedded != nil {
		if given != nil && *given != "" && *given != *embedded {
			x.add("name", msgEmbedded)
		}
		given = embedded
	}
	if given != nil {
		s.Name = *given
	}
	if s.Name == "" {
		x.add("name", msgRequired)
		return
	}
	x.form.text("name", s.Name, 255, nil)
	switch _, err := strconv.Atoi(s.Name); {
	case strings.EqualFold(s.Name, "none"):
		x.add("name", `"none" is a reserved name.`)
	case err == nil:
		x.add("name", "Cannot be a number.")
	case scriptNameBad.MatchString(s.Name) || strings.Contains(s.Name, "/") || s.Name[0] == '.':
		// A slash or a leading dot would leave the folder that runners unpack scripts into.
		x.add("name", "Name '%s' contains disallowed characters, e.g. space or quotes.", s.Name)
	}
}

// text is a text of the block, or nil.
func (x *scriptForm) text(key string) *string {
	v, ok := x.block[key]
	if !ok || v == nil {
		return nil
	}
	s := fmt.Sprint(v)
	return &s
}

func (x *scriptForm) str(field, key string, given *string, into *string, limit int) {
	if embedded := x.text(key); embedded != nil {
		if given != nil && *given != "" && *given != *embedded {
			x.add(field, msgEmbedded)
		}
		given = embedded
	}
	if given != nil {
		*into = *given
	}
	x.form.text(field, *into, limit, nil)
}

func (x *scriptForm) choice(field, key string, given *string, words map[string]int64, into *int64) {
	lookup := func(s string) (int64, bool) {
		n, ok := words[strings.ToLower(strings.TrimSpace(s))]
		return n, ok
	}
	if embedded := x.text(key); embedded != nil {
		n, ok := lookup(*embedded)
		if given != nil && *given != "" {
			if m, mok := lookup(*given); !mok || m != n {
				x.add(field, msgEmbedded)
				return
			}
		}
		if !ok {
			x.add(field, "'%s' is not one of the available choices.", clip(*embedded))
		}
		*into = n
		return
	}
	if given == nil || *given == "" {
		return
	}
	n, ok := lookup(*given)
	if !ok {
		x.add(field, "'%s' is not one of the available choices.", clip(*given))
	}
	*into = n
}

func (x *scriptForm) flag(field string, given *bool, into *bool) {
	if v, ok := x.block[field]; ok && v != nil {
		on := v == true || slices.Contains([]string{"true", "yes", "on", "1"}, strings.ToLower(fmt.Sprint(v)))
		if given != nil && *given != on {
			x.add(field, msgEmbedded)
		}
		given = &on
	}
	if given != nil {
		*into = *given
	}
}

// ParseSeconds reads seconds, or [D ]HH:MM:SS.
func ParseSeconds(text string) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Duration(n) * time.Second, n >= 0 && n < 1e9
	}
	m := daysTime.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	var n [4]int64
	for i := range n {
		n[i], _ = strconv.ParseInt("0"+m[i+1], 10, 64) // few digits by the expression
	}
	return time.Duration(((n[0]*24+n[1])*60+n[2])*60+n[3]) * time.Second, true
}

func (x *scriptForm) timeout(s *storage.Script) {
	given := x.in.Timeout
	if embedded := x.text("timeout"); embedded != nil && x.create {
		if given != nil && *given != "" {
			a, _ := ParseSeconds(*given)
			if b, ok := ParseSeconds(*embedded); !ok || a != b {
				x.add("timeout", msgEmbedded)
			}
		}
		given = embedded
	}
	if given == nil || *given == "" {
		return
	}
	d, ok := ParseSeconds(*given)
	if !ok {
		x.add("timeout", msgInvalid)
	}
	s.Timeout = d
}

func (x *scriptForm) tags(s *storage.Script) {
	given := x.in.Tags
	if given == nil && x.create {
		given = listOfTexts(x.block["tags"])
	}
	if given != nil {
		s.Tags = splitList(given)
	}
	s.Tags = slices.DeleteFunc(slices.Clone(s.Tags), func(t string) bool {
		return t == "" || slices.Contains(hardwareNames, t) && t != hardwareNames[s.HardwareType] || t == "destructive" && !s.Destructive
	})
	for _, t := range s.Tags {
		if scriptTagBad.MatchString(t) || utf8.RuneCountInString(t) > 255 || !utf8.ValidString(t) {
			x.add("tags", msgInvalid)
		}
	}
	if len(s.Tags) > maxScriptTags {
		x.add("tags", "A script has at most %d tags.", maxScriptTags)
	}
	addTag(s, hardwareNames[s.HardwareType])
	if s.Destructive {
		addTag(s, "destructive")
	}
}

func addTag(s *storage.Script, tag string) {
	if !slices.Contains(s.Tags, tag) {
		s.Tags = append(s.Tags, tag)
	}
}

// listOfTexts reads a list that may have been written as a comma text; nil when v is nil.
func listOfTexts(v any) []string {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		out := []string{}
		for _, e := range v {
			out = append(out, strings.TrimSpace(fmt.Sprint(e)))
		}
		return out
	case string:
		out := []string{}
		for _, e := range strings.Split(v, ",") {
			if e = strings.TrimSpace(e); e != "" {
				out = append(out, e)
			}
		}
		return out
	}
	return []string{fmt.Sprint(v)}
}

func (x *scriptForm) forHardware(s *storage.Script) {
	given := x.in.ForHardware
	if embedded := listOfTexts(x.block["for_hardware"]); embedded != nil {
		if len(given) > 0 && !slices.Equal(given, embedded) {
			x.add("for_hardware", msgEmbedded)
		}
		given = embedded
	}
	if given == nil {
		return
	}
	s.ForHardware = []string{}
	for _, id := range given {
		if id = strings.TrimSpace(id); id == "" {
			continue
		}
		if !hardwareID.MatchString(id) || len(id) > 255 {
			x.add("for_hardware", "Hardware identifier '%s' must be a modalias, PCI ID, USB ID, system vendor, system product, system version, mainboard vendor, or mainboard product.", clip(id))
		}
		s.ForHardware = append(s.ForHardware, id)
	}
}

func (x *scriptForm) packages(s *storage.Script) {
	given, embedded := x.in.Packages, x.block["packages"]
	var doc any
	switch {
	case embedded != nil:
		if given != nil && *given != "" {
			var g any
			if json.Unmarshal([]byte(*given), &g) != nil || fmt.Sprint(g) != fmt.Sprint(embedded) {
				x.add("packages", msgEmbedded)
			}
		}
		doc = embedded
	case given == nil:
		return
	case *given == "":
		doc = map[string]any{}
	default:
		if len(*given) > maxScriptField || json.Unmarshal([]byte(*given), &doc) != nil {
			x.add("packages", msgInvalid)
			return
		}
	}
	m, ok := doc.(map[string]any)
	if !ok {
		x.add("packages", "Packages must be an object with apt, snap or url.")
		return
	}
	for kind, v := range m {
		if kind != "apt" && kind != "snap" && kind != "url" {
			x.add("packages", "Unknown package source '%s'.", clip(kind))
			continue
		}
		if _, single := v.(string); single {
			m[kind] = []any{v}
		}
		if kind == "snap" {
			for _, e := range listAny(m[kind]) {
				x.snap(e)
			}
		}
	}
	s.Packages = rawJSON(m)
}

func (x *scriptForm) snap(v any) {
	m, ok := v.(map[string]any)
	if !ok {
		return
	}
	if n, _ := m["name"].(string); n == "" {
		x.add("packages", "Snap package name must be defined.")
	}
	if c, _ := m["channel"].(string); c != "" {
		parts := strings.Split(c, "/")
		if !slices.ContainsFunc(parts, func(p string) bool { return slices.Contains([]string{"edge", "beta", "candidate", "stable"}, p) }) {
			x.add("packages", "Snap channel must be edge, beta, candidate, or stable.")
		}
	}
	if mode, _ := m["mode"].(string); mode != "" && mode != "classic" && mode != "dev" && mode != "jail" {
		x.add("packages", "Snap mode must be classic, dev, or jail.")
	}
}

func listAny(v any) []any {
	if l, ok := v.([]any); ok {
		return l
	}
	return []any{v}
}

func (x *scriptForm) results(s *storage.Script) {
	v, ok := x.block["results"]
	if !ok || v == nil {
		if x.in.Content != nil {
			s.Results = nil
		}
		return
	}
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if _, ok := e.(string); !ok {
				x.add("results", "Each result in a result list must be a string.")
			}
		}
	case map[string]any:
		for name, e := range v {
			m, ok := e.(map[string]any)
			if !ok || m["title"] == nil {
				x.add("results", "title must be included in result definition of %s.", clip(name))
			}
		}
	default:
		x.add("results", "results must be a list of names or a mapping of definitions.")
		return
	}
	s.Results = rawJSON(v)
}

func (x *scriptForm) parameters(s *storage.Script) {
	v, ok := x.block["parameters"]
	if !ok || v == nil {
		if x.in.Content != nil {
			s.Parameters = nil
		}
		return
	}
	m, ok := v.(map[string]any)
	if !ok {
		x.add("parameters", "Must be a dictionary")
		return
	}
	for _, problem := range checkParameters(m) {
		x.add("parameters", "%s", problem)
	}
	s.Parameters = rawJSON(m)
}

// rawJSON writes what plain made.
func rawJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return nil // plain leaves nothing that JSON cannot write
	}
	return b
}
