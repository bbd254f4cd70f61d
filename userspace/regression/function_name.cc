#include "userspace/regression/function_name.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace pyrometer::regression {
namespace {

constexpr std::array<std::string_view, 11> kCloneSuffixes = {
    "part", "constprop", "isra", "cold", "hot", "unlikely", "lto_priv", "localalias", "llvm", "clone", "resolver"};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameChar(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' ||
         static_cast<unsigned char>(c) >= 0x80;
}

bool EndsName(std::string_view text, size_t at) { return at >= text.size() || !IsNameChar(text[at]); }

// ".part.0", ".cold", ".lto_priv.1.constprop.0" from the end.
std::string_view StripCloneSuffixes(std::string_view name) {
  for (;;) {
    size_t end = name.size();
    while (end > 0 && IsDigit(name[end - 1])) --end;
    if (end < name.size() && (end == 0 || name[end - 1] != '.')) break;
    if (end < name.size()) --end;
    const size_t dot = name.substr(0, end).rfind('.');
    if (dot == std::string_view::npos || dot == 0) break;
    const std::string_view word = name.substr(dot + 1, end - dot - 1);
    if (std::find(kCloneSuffixes.begin(), kCloneSuffixes.end(), word) == kCloneSuffixes.end()) break;
    name = name.substr(0, dot);
  }
  return name;
}

// " [clone .part.0] [clone .cold]" from the end.
std::string_view StripCloneMarks(std::string_view name) {
  for (;;) {
    const size_t at = name.rfind(" [clone ");
    if (at == std::string_view::npos || at == 0 || !name.ends_with(']')) return name;
    name = name.substr(0, at);
  }
}

void StripPrefix(std::string_view* name, std::string_view prefix) {
  if (name->starts_with(prefix)) name->remove_prefix(prefix.size());
}

// Length of an operator's symbol that follows the word "operator"; 0 when none does (a conversion, or a literal).
size_t OperatorSymbol(std::string_view rest) {
  static constexpr std::array<std::string_view, 20> kSymbols = {
      "()", "[]", "->*", "->", "<=>", "<<=", ">>=", "<<", ">>", "<=",
      ">=", "<",  ">",   "==", "!=",  "&&",  "||",  "++", "--", ",",
  };
  for (const std::string_view symbol : kSymbols) {
    if (rest.starts_with(symbol)) return symbol.size();
  }
  size_t length = 0;
  while (length < rest.size() && std::string_view("+-*/%^&|~!=").find(rest[length]) != std::string_view::npos) ++length;
  return length;
}

// The position after the bracket that closes the one at `at`; `text.size()` when none does.
size_t SkipBrackets(std::string_view text, size_t at) {
  const char open = text[at];
  const char close = open == '(' ? ')' : open == '<' ? '>' : open == '{' ? '}' : ']';
  size_t depth = 0;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (open == '<' && text.substr(at).starts_with("operator") && EndsName(text, at + 8) &&
        (at == 0 || !IsNameChar(text[at - 1]))) {
      at += 7 + OperatorSymbol(text.substr(at + 8));  // its < or > is no bracket
      continue;
    }
    if (open == '<' && c == '-' && at + 1 < text.size() && text[at + 1] == '>') {
      ++at;
      continue;
    }
    if (c == open) ++depth;
    if (c == close && --depth == 0) return at + 1;
  }
  return text.size();
}

// Walks over a C++ (or Rust) name and writes its stable parts. At the first parameter list it stops; a blank outside of
// brackets means that what came before was a return type, which is forgotten.
class NameWriter {
 public:
  explicit NameWriter(std::string_view text) : text_(text) {}

  std::string Write() {
    while (at_ < text_.size() && Step()) {
    }
    while (out_.ends_with(' ')) out_.pop_back();
    return std::move(out_);
  }

 private:
  bool Rest(std::string_view what) const { return text_.substr(at_).starts_with(what); }

  bool Step() {
    const char c = text_[at_];
    if (Rest("(anonymous namespace)")) {
      out_ += "(anonymous)";
      at_ += 21;
      return true;
    }
    if (Rest("operator") && EndsName(text_, at_ + 8) && (at_ == 0 || !IsNameChar(text_[at_ - 1]))) return Operator();
    switch (c) {
      case '(':
        return Parenthesis();
      case '<':
        return Angle();
      case '{':
        Brace();
        return true;
      case '[':
        // ABI tags; Go's generic arguments.
        at_ = SkipBrackets(text_, at_);
        return true;
      case ' ':
        ++at_;
        // "<A as B>::f" has its blanks inside of brackets; here it parts a return type from the name.
        out_.clear();
        return true;
      case '$':
        if (at_ + 2 < text_.size() && text_[at_ + 1] == '_' && IsDigit(text_[at_ + 2])) {  // clang's lambdas: $_0
          out_ += "{lambda}";
          at_ += 2;
          while (at_ < text_.size() && IsDigit(text_[at_])) ++at_;
          return true;
        }
        break;
      default:
        break;
    }
    out_ += c;
    ++at_;
    return true;
  }

  bool Operator() {
    out_ += "operator";
    at_ += 8;
    const size_t symbol = OperatorSymbol(text_.substr(at_));
    if (symbol > 0) {
      out_ += text_.substr(at_, symbol);
      at_ += symbol;
      if (Rest(" <")) {  // "operator< <int>": the blank parts no return type from a name
        out_ += " <>";
        at_ = SkipBrackets(text_, at_ + 1);
      }
      return true;
    }
    // A conversion, "operator bool()", a literal, or new and delete: the rest up to the parameters belongs to the name.
    while (at_ < text_.size() && text_[at_] != '(') {
      if (text_[at_] == '<') {
        out_ += "<>";
        at_ = SkipBrackets(text_, at_);
      } else if (text_[at_] == '[' && Rest("[]")) {
        out_ += "[]";
        at_ += 2;
      } else {
        out_ += text_[at_++];
      }
    }
    return true;
  }

  // False at the parameter list that ends the name.
  bool Parenthesis() {
    const size_t after = SkipBrackets(text_, at_);
    // "f(int)::helper()": what is local to a function goes on after its parameters. "(*T).Method" of Go.
    std::string_view rest = text_.substr(after);
    StripPrefix(&rest, " const");
    if (rest.starts_with("::")) {
      at_ = text_.size() - rest.size();
      return true;
    }
    if (out_.ends_with('.') && rest.starts_with('.')) {
      out_ += text_.substr(at_, after - at_);
      at_ = after;
      return true;
    }
    // A function that returns a function pointer, or a name that begins with a parenthesis: keep going.
    if (out_.empty()) {
      at_ = after;
      return true;
    }
    return false;
  }

  bool Angle() {
    const size_t after = SkipBrackets(text_, at_);
    if (out_.empty()) {
      // Rust: "<T as Trait>::method". Its inside is part of the name.
      std::string_view inside = text_.substr(at_ + 1, after - at_ - 2);
      const size_t as = inside.find(" as ");
      const auto fold = [](std::string_view part) {
        std::string folded;
        for (size_t i = 0; i < part.size();) {
          if (part[i] == '<') {
            folded += "<>";
            i = SkipBrackets(part, i);
          } else {
            folded += part[i++];
          }
        }
        return folded;
      };
      out_ += '<';
      out_ += fold(inside.substr(0, as));
      if (as != std::string_view::npos) out_ += " as " + fold(inside.substr(as + 4));
      out_ += '>';
    } else if (out_.ends_with("::")) {
      // Rust's turbofish, "Vec::<T>::push".
      out_ += "<>";
    } else {
      out_ += "<>";
    }
    at_ = std::max(after, at_ + 1);
    return true;
  }

  void Brace() {
    const size_t after = SkipBrackets(text_, at_);
    const std::string_view inside = text_.substr(at_, after - at_);
    if (inside.starts_with("{lambda")) {
      out_ += "{lambda}";
    } else if (inside.starts_with("{unnamed")) {
      out_ += "{unnamed}";
    } else if (inside.starts_with("{{closure}}") || inside.starts_with("{closure")) {
      out_ += "{closure}";
    } else {
      out_ += inside;
    }
    at_ = std::max(after, at_ + 1);
    // "{closure}#0" of Rust's v0 names.
    if (at_ < text_.size() && text_[at_] == '#') {
      ++at_;
      while (at_ < text_.size() && IsDigit(text_[at_])) ++at_;
    }
  }

  const std::string_view text_;
  size_t at_ = 0;
  std::string out_;
};

// "main.main.func1.2" of Go -> "main.main.func".
std::string FoldGoClosures(std::string name) {
  for (size_t at = name.find(".func"); at != std::string::npos; at = name.find(".func", at + 5)) {
    size_t end = at + 5;
    while (end < name.size() &&
           (IsDigit(name[end]) || (name[end] == '.' && end + 1 < name.size() && IsDigit(name[end + 1]))))
      ++end;
    if (end > at + 5 && (end == name.size() || name[end] == '.')) name.erase(at + 5, end - at - 5);
  }
  return name;
}

// "libfoo.so.1+0x1234".
bool IsBareAddress(std::string_view name) {
  const size_t plus = name.rfind("+0x");
  if (plus == std::string_view::npos || plus + 3 == name.size()) return false;
  return std::all_of(name.begin() + static_cast<std::ptrdiff_t>(plus) + 3, name.end(),
                     [](unsigned char c) { return std::isxdigit(c) != 0; });
}

}  // namespace

std::string NormalizeFunctionName(std::string_view name) {
  if (IsBareAddress(name)) {
    const std::string_view file = name.substr(0, name.rfind("+0x"));
    return "[" + NormalizeModule(file) + "]";
  }
  // "[unknown]", "[truncated]" and the like are ours.
  if (name.starts_with('[')) return std::string(name);
  name = StripCloneMarks(name);
  StripPrefix(&name, "non-virtual thunk to ");
  StripPrefix(&name, "virtual thunk to ");
  if (const size_t at = name.find('@'); at != std::string_view::npos && at > 0) name = name.substr(0, at);
  name = StripCloneSuffixes(name);
  std::string result = FoldGoClosures(NameWriter(name).Write());
  return result.empty() ? std::string(name) : result;
}

std::string NormalizeModule(std::string_view path) {
  if (path.ends_with(" (deleted)")) path.remove_suffix(10);
  if (path.starts_with('[')) return std::string(path);
  if (const size_t slash = path.rfind('/'); slash != std::string_view::npos) path = path.substr(slash + 1);
  std::string module(path);
  // libz.so.1.2.13 -> libz.so; libc-2.31.so -> libc.so.
  if (const size_t so = module.find(".so"); so != std::string::npos) {
    module.resize(so);
    size_t end = module.size();
    while (end > 0 && (IsDigit(module[end - 1]) || module[end - 1] == '.')) --end;
    if (end > 0 && end < module.size() && module[end - 1] == '-') module.resize(end - 1);
    module += ".so";
  }
  return module;
}

bool IsLibraryModule(std::string_view module) {
  return module.starts_with('[') || module.find(".so") != std::string_view::npos;
}

std::string_view ScopeOf(std::string_view name) {
  // The last "::" outside of brackets; Go and Java part by dots.
  size_t depth = 0;
  for (size_t i = name.size(); i-- > 1;) {
    const char c = name[i];
    if (c == '>' || c == ')' || c == '}') ++depth;
    if ((c == '<' || c == '(' || c == '{') && depth > 0) --depth;
    if (depth == 0 && c == ':' && name[i - 1] == ':') return name.substr(0, i - 1);
  }
  const size_t dot = name.rfind('.');
  return dot == std::string_view::npos || dot == 0 ? std::string_view() : name.substr(0, dot);
}

}  // namespace pyrometer::regression
