#include "userspace/symbolize/plt_stubs.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace pyrometer::symbolize {
namespace {

using elf::Section;

// chromium, the largest seen, has 3,000 stubs and 900,000 relocations (most of them RELATIVE).
constexpr uint64_t kMaxPltBytes = 4u << 20;
constexpr uint64_t kMaxRelocations = 4u << 20;

int32_t LoadInt32(std::string_view bytes, size_t at) {
  int32_t value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

// What one stub tells about its target: the slot it jumps through, or its index in .rela.plt.
struct Stub {
  std::optional<uint64_t> slot;
  std::optional<uint32_t> index;
};

Stub Decode(std::string_view code, uint64_t address) {
  size_t at = 0;
  if (code.starts_with("\xf3\x0f\x1e\xfa")) at = 4;  // endbr64
  Stub stub;
  if (code.size() >= at + 5 && code[at] == '\x68') {  // push index; jmp PLT0
    stub.index = static_cast<uint32_t>(LoadInt32(code, at + 1));
    return stub;
  }
  if (code.size() > at && code[at] == '\xf2') ++at;                             // bnd
  if (code.size() >= at + 6 && code[at] == '\xff' && code[at + 1] == '\x25') {  // jmp *slot(%rip)
    stub.slot = address + at + 6 + static_cast<uint64_t>(int64_t{LoadInt32(code, at + 2)});
  }
  return stub;
}

}  // namespace

Status AddPltStubs(const elf::ElfFile& file, SymbolIndexBuilder* builder) {
  if (file.machine() != EM_X86_64) return OkStatus();
  std::vector<const Section*> stubs;
  for (const char* name : {".plt", ".plt.sec", ".plt.bnd", ".plt.got"}) {
    const Section* section = file.FindSection(name);
    if (section != nullptr && section->executable() && section->has_bytes()) stubs.push_back(section);
  }
  const Section* symbols = file.FindSection(uint32_t{SHT_DYNSYM});
  if (stubs.empty() || symbols == nullptr || file.LinkedStrings(*symbols) == nullptr) return OkStatus();

  std::unordered_map<uint64_t, uint32_t> symbol_of_slot;
  std::vector<uint32_t> symbol_of_index;  // order of .rela.plt
  for (const char* name : {".rela.plt", ".rela.dyn"}) {
    const Section* section = file.FindSection(name);
    if (section == nullptr || section->type != SHT_RELA) continue;
    ASSIGN_OR_RETURN(const auto relocations, file.ReadRelocations(*section, kMaxRelocations));
    for (const elf::RawRelocation& relocation : relocations) {
      if (std::string_view(name) == ".rela.plt") symbol_of_index.push_back(relocation.symbol);
      if (relocation.type == R_X86_64_JUMP_SLOT || relocation.type == R_X86_64_GLOB_DAT) {
        symbol_of_slot.emplace(relocation.target.value, relocation.symbol);
      }
    }
  }
  if (symbol_of_slot.empty() && symbol_of_index.empty()) return OkStatus();

  std::unordered_map<uint32_t, uint32_t> name_of_symbol;  // symbol index -> offset of its name
  for (const auto& [slot, symbol] : symbol_of_slot) name_of_symbol.emplace(symbol, 0);
  RETURN_IF_ERROR(file.ForEachSymbol(*symbols, [&](uint64_t first, const std::vector<elf::RawSymbol>& piece) {
    for (size_t i = 0; i < piece.size(); ++i) {
      if (const auto found = name_of_symbol.find(static_cast<uint32_t>(first + i)); found != name_of_symbol.end()) {
        found->second = piece[i].name;
      }
    }
  }));

  struct Named {
    ElfAddress address;
    uint64_t size;
    uint32_t name;
  };
  std::vector<Named> named;
  for (const Section* section : stubs) {
    ASSIGN_OR_RETURN(const std::string code, file.ReadSection(*section, kMaxPltBytes));
    const uint64_t entry = section->entry_size == 8 ? 8 : 16;
    for (uint64_t at = 0; at + entry <= code.size(); at += entry) {
      const ElfAddress address(section->address.value + at);
      const Stub stub = Decode(std::string_view(code).substr(at, entry), address.value);
      uint32_t symbol = 0;  // 0: the null symbol, for relocations without name
      if (stub.index.has_value() && *stub.index < symbol_of_index.size()) {
        symbol = symbol_of_index[*stub.index];
      } else if (stub.slot.has_value()) {
        if (const auto found = symbol_of_slot.find(*stub.slot); found != symbol_of_slot.end()) symbol = found->second;
      }
      const auto name = name_of_symbol.find(symbol);
      if (name != name_of_symbol.end() && name->second != 0) named.push_back({address, entry, name->second});
    }
  }
  std::sort(named.begin(), named.end(), [](const Named& a, const Named& b) { return a.name < b.name; });
  elf::StringTableReader names(file, *file.LinkedStrings(*symbols));
  for (const Named& stub : named) {
    ASSIGN_OR_RETURN(const std::string_view name, names.At(stub.name));
    if (!name.empty()) builder->Add(stub.address, stub.size, SymbolRank{.typed = true}, std::string(name) + "@plt");
  }
  return OkStatus();
}

}  // namespace pyrometer::symbolize
