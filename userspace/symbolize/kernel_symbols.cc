#include "userspace/symbolize/kernel_symbols.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/symbolize/demangle.h"

namespace pyrometer::symbolize {
namespace {

// Largest function seen in a distribution kernel: 61 KiB.
constexpr uint64_t kMaxFunctionBytes = 256u << 10;
// A BPF program of 1 M verified instructions can be larger; ordinary ones have 0.2-8 KiB.
constexpr uint64_t kMaxBpfProgramBytes = 16u << 10;

// Takes the next hexadecimal number (with or without 0x) off `text`; false when there is none.
bool TakeHex(std::string_view* text, uint64_t* value) {
  if (text->starts_with("0x")) text->remove_prefix(2);
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), *value, 16);
  if (error != std::errc()) return false;
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return true;
}

std::string_view TakeLine(std::string_view* text) {
  const size_t end = std::min(text->find('\n'), text->size());
  const std::string_view line = text->substr(0, end);
  text->remove_prefix(std::min(end + 1, text->size()));
  return line;
}

// Marks that the linker script sets behind code: what follows is not the function before.
bool IsEndMark(std::string_view name) {
  return name == "_etext" || name == "_einittext" || name == "__init_end" || name == "_end" || name == "_sinittext";
}

void AddModuleEnds(std::string_view modules, SymbolIndexBuilder* builder) {
  // "nf_tables 311296 8 nft_compat, Live 0xffffffffc0a00000 (O)"
  while (!modules.empty()) {
    const std::vector<std::string_view> words = Split(TakeLine(&modules), ' ');
    if (words.size() < 6) continue;
    const auto size = ParseUint64(words[1]);
    std::string_view base_text = words[5];
    uint64_t base = 0;
    if (size.has_value() && TakeHex(&base_text, &base) && base != 0) {
      builder->AddBoundary(ElfAddress(base + *size));
    }
  }
}

}  // namespace

KallsymsTable ParseKallsyms(std::string_view kallsyms, std::string_view modules) {
  KallsymsTable table;
  SymbolIndexBuilder builder;
  builder.set_max_extension(kMaxFunctionBytes);
  AddModuleEnds(modules, &builder);
  size_t symbols = 0, with_address = 0;
  std::string name;
  while (!kallsyms.empty()) {
    std::string_view line = TakeLine(&kallsyms);
    if (line.empty()) continue;
    uint64_t address = 0;
    if (!TakeHex(&line, &address) || line.size() < 4 || line[0] != ' ' || line[2] != ' ') {
      ++table.bad_lines;
      continue;
    }
    const char type = line[1];
    line.remove_prefix(3);
    ++symbols;
    if (address == 0) continue;
    ++with_address;
    const size_t tab = line.find('\t');
    const std::string_view function = line.substr(0, tab);
    const bool text = type == 't' || type == 'T' || type == 'w' || type == 'W';
    if (!text || IsEndMark(function)) {
      builder.AddBoundary(ElfAddress(address));
      continue;
    }
    name = function;
    bool bpf = false;
    if (tab != std::string_view::npos) {
      std::string_view module = StripWhitespace(line.substr(tab + 1));
      if (module.starts_with('[') && module.ends_with(']')) module = module.substr(1, module.size() - 2);
      bpf = module == "bpf";
      name += '\t';
      name += module;
    }
    ++table.functions;
    const SymbolRank rank{.typed = true, .global = type == 'T', .exported = type != 't'};
    builder.Add(ElfAddress(address), 0, rank, name);
    if (bpf) builder.AddBoundary(ElfAddress(address + kMaxBpfProgramBytes));
  }
  table.addresses_hidden = symbols > 0 && with_address == 0;
  table.index = std::move(builder).Build();
  return table;
}

Status KernelSymbols::Refresh() {
  const std::lock_guard lock(mutex_);
  return RefreshLocked();
}

Status KernelSymbols::RefreshLocked() {
  last_refresh_ns_ = MonotonicNowNs();
  ++refreshes_;
  const StatusOr<std::string> kallsyms = ReadFile(options_.kallsyms_path);
  read_status_ = kallsyms.status();
  if (!kallsyms.ok()) return read_status_;
  // Without modules' ends a module's last function is a little too long: no reason to fail.
  const StatusOr<std::string> modules = ReadFile(options_.modules_path);
  table_ = ParseKallsyms(*kallsyms, modules.ok() ? std::string_view(*modules) : std::string_view());
  names_.clear();
  return OkStatus();
}

Symbol KernelSymbols::Symbolize(VirtualAddress address) {
  const std::lock_guard lock(mutex_);
  // A failure is reported through read_status_ below.
  if (refreshes_ == 0) (void)RefreshLocked();
  auto hit = table_.index.Find(ElfAddress(address.value));
  if (!hit.has_value() && MonotonicNowNs() - last_refresh_ns_ >= options_.min_refresh_ns) {
    (void)RefreshLocked();
    hit = table_.index.Find(ElfAddress(address.value));
  }
  if (!hit.has_value()) {
    if (table_.addresses_hidden) return Symbol::Miss(MissReason::kKernelHidden);
    if (table_.index.empty() && !read_status_.ok()) {
      return Symbol::Miss(read_status_.code() == StatusCode::kPermissionDenied ? MissReason::kKernelHidden
                                                                               : MissReason::kReadFailed);
    }
    return Symbol::Miss(MissReason::kKernelUnknown);
  }
  std::shared_ptr<const FunctionName>& name = names_[hit->function];
  if (name == nullptr) {
    const std::string_view full = table_.index.name(hit->function);
    const size_t tab = full.find('\t');
    // Rust code in the kernel has mangled names.
    const std::string_view function = full.substr(0, tab);
    FunctionName made;
    made.name = Demangle(function);
    if (made.name != function) made.system_name = PrintableName(function);
    if (tab != std::string_view::npos) made.module = PrintableName(full.substr(tab + 1));
    name = std::make_shared<const FunctionName>(std::move(made));
  }
  Symbol symbol;
  symbol.function = name;
  symbol.offset = hit->offset;
  return symbol;
}

uint64_t KernelSymbols::refreshes() const {
  const std::lock_guard lock(mutex_);
  return refreshes_;
}

size_t KernelSymbols::function_count() const {
  const std::lock_guard lock(mutex_);
  return table_.functions;
}

size_t KernelSymbols::memory_bytes() const {
  const std::lock_guard lock(mutex_);
  return table_.index.memory_bytes() + names_.size() * 160;  // a map node and two short strings
}

}  // namespace pyrometer::symbolize
