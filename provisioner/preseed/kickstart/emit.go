package kickstart

import (
	"fmt"
	"strconv"
	"strings"
)

// A kickstart is read line by line; pykickstart takes each line of the command section apart with the rules of Python's shlex: words end
// at blanks, quotes of both kinds join, a backslash takes the next character as it is (inside double quotes only before a double quote or
// a backslash), and # begins a comment even inside a word. Python ends lines at more characters than newline, so words hold printable
// ASCII only: nothing else can be quoted.

// command is a line of the command section, as words.
type command []string

func cmd(name string, args ...string) command { return append(command{name}, args...) }

// opt is an option with its value.
func opt(name, value string) string { return "--" + name + "=" + value }

func number(name string, value int64) string { return opt(name, strconv.FormatInt(value, 10)) }

// plain says whether a word needs no quotes. A word that begins with % or - would mean something else, which is the caller's affair.
func plain(w string) bool {
	return w != "" && strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=,@%+^-") == ""
}

// printable says whether a text can stand in a kickstart.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// quote writes a word such that shlex reads it back unchanged.
func quote(w string) string {
	if plain(w) {
		return w
	}
	if name, value, ok := strings.Cut(w, "="); ok && strings.HasPrefix(w, "--") && plain(name) && value != "" {
		return name + "=" + quote(value)
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
}

// line writes a command.
func (c command) line() (string, error) {
	words := make([]string, len(c))
	for i, w := range c {
		if !printable(w) {
			return "", fmt.Errorf("%s: %q has characters that a kickstart cannot hold: use letters, digits and punctuation of ASCII", c[0], w)
		}
		if i > 0 && !strings.HasPrefix(w, "--") && strings.HasPrefix(w, "-") {
			return "", fmt.Errorf("%s: %q would be taken for an option", c[0], w)
		}
		words[i] = quote(w)
	}
	return strings.Join(words, " "), nil
}

// lines writes commands, one a line.
func lines(cs []command) (string, error) {
	var b strings.Builder
	for _, c := range cs {
		l, err := c.line()
		if err != nil {
			return "", err
		}
		b.WriteString(l + "\n")
	}
	return b.String(), nil
}

// shell quotes a word for the shell. Line ends are refused before: in a section a line that begins with %end would end it.
func shell(w string) string {
	if plain(w) && !strings.HasPrefix(w, "-") {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// script is the body of a section. Its text is this package's; every value goes through call or set.
type script struct {
	b   strings.Builder
	err error
}

func (s *script) text(lines string) { s.b.WriteString(strings.Trim(lines, "\n") + "\n") }

func (s *script) check(w string) string {
	if !printable(w) && s.err == nil {
		s.err = fmt.Errorf("%q has characters that a kickstart's script cannot hold", w)
	}
	return shell(w)
}

// call is a command with arguments.
func (s *script) call(name string, args ...string) {
	s.b.WriteString(name)
	for _, a := range args {
		s.b.WriteString(" " + s.check(a))
	}
	s.b.WriteString("\n")
}

// set assigns a variable.
func (s *script) set(name, value string) { s.b.WriteString(name + "=" + s.check(value) + "\n") }
