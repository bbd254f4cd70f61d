// The numbers of the DWARF standard (versions 2 to 5) and of its GNU extensions that this reader
// looks at. Names follow the standard's: DW_TAG_subprogram is kTagSubprogram.
#pragma once

#include <cstdint>

namespace pyrometer::dwarf {

enum Tag : uint16_t {
  kTagCompileUnit = 0x11,
  kTagInlinedSubroutine = 0x1d,
  kTagSubprogram = 0x2e,
  kTagPartialUnit = 0x3c,
  kTagTypeUnit = 0x41,
  kTagSkeletonUnit = 0x4a,
};

enum Attribute : uint16_t {
  kAtName = 0x03,
  kAtStatementList = 0x10,
  kAtLowPc = 0x11,
  kAtHighPc = 0x12,
  kAtCompilationFolder = 0x1b,
  kAtAbstractOrigin = 0x31,
  kAtDeclarationLine = 0x3b,
  kAtSpecification = 0x47,
  kAtRanges = 0x55,
  kAtCallFile = 0x58,
  kAtCallLine = 0x59,
  kAtSignature = 0x69,
  kAtLinkageName = 0x6e,
  kAtStringOffsetsBase = 0x72,
  kAtAddressBase = 0x73,
  kAtRangeListsBase = 0x74,
  kAtDwoName = 0x76,
  kAtMipsLinkageName = 0x2007,
  kAtGnuDwoName = 0x2130,
  kAtGnuDwoId = 0x2131,
  kAtGnuRangesBase = 0x2132,
  kAtGnuAddressBase = 0x2133,
};

enum Form : uint16_t {
  kFormAddress = 0x01,
  kFormBlock2 = 0x03,
  kFormBlock4 = 0x04,
  kFormData2 = 0x05,
  kFormData4 = 0x06,
  kFormData8 = 0x07,
  kFormString = 0x08,
  kFormBlock = 0x09,
  kFormBlock1 = 0x0a,
  kFormData1 = 0x0b,
  kFormFlag = 0x0c,
  kFormSdata = 0x0d,
  kFormStrp = 0x0e,
  kFormUdata = 0x0f,
  kFormRefAddress = 0x10,
  kFormRef1 = 0x11,
  kFormRef2 = 0x12,
  kFormRef4 = 0x13,
  kFormRef8 = 0x14,
  kFormRefUdata = 0x15,
  kFormIndirect = 0x16,
  kFormSectionOffset = 0x17,
  kFormExpression = 0x18,
  kFormFlagPresent = 0x19,
  kFormStrx = 0x1a,
  kFormAddrx = 0x1b,
  kFormRefSup4 = 0x1c,
  kFormStrpSup = 0x1d,
  kFormData16 = 0x1e,
  kFormLineStrp = 0x1f,
  kFormRefSig8 = 0x20,
  kFormImplicitConst = 0x21,
  kFormLoclistx = 0x22,
  kFormRnglistx = 0x23,
  kFormRefSup8 = 0x24,
  kFormStrx1 = 0x25,
  kFormStrx2 = 0x26,
  kFormStrx3 = 0x27,
  kFormStrx4 = 0x28,
  kFormAddrx1 = 0x29,
  kFormAddrx2 = 0x2a,
  kFormAddrx3 = 0x2b,
  kFormAddrx4 = 0x2c,
  kFormGnuAddrIndex = 0x1f01,
  kFormGnuStrIndex = 0x1f02,
  kFormGnuRefAlt = 0x1f20,
  kFormGnuStrpAlt = 0x1f21,
};

enum UnitType : uint8_t {
  kUnitCompile = 0x01,
  kUnitType = 0x02,
  kUnitPartial = 0x03,
  kUnitSkeleton = 0x04,
  kUnitSplitCompile = 0x05,
  kUnitSplitType = 0x06,
};

enum LineStandardOpcode : uint8_t {
  kLineCopy = 1,
  kLineAdvancePc = 2,
  kLineAdvanceLine = 3,
  kLineSetFile = 4,
  kLineSetColumn = 5,
  kLineNegateStatement = 6,
  kLineSetBasicBlock = 7,
  kLineConstAddPc = 8,
  kLineFixedAdvancePc = 9,
  kLineSetPrologueEnd = 10,
  kLineSetEpilogueBegin = 11,
  kLineSetIsa = 12,
};

enum LineExtendedOpcode : uint8_t {
  kLineEndSequence = 1,
  kLineSetAddress = 2,
  kLineDefineFile = 3,
};

enum LineContentType : uint16_t {
  kLineContentPath = 1,
  kLineContentFolderIndex = 2,
};

enum RangeListEntry : uint8_t {
  kRangeEnd = 0,
  kRangeBaseAddressx = 1,
  kRangeStartxEndx = 2,
  kRangeStartxLength = 3,
  kRangeOffsetPair = 4,
  kRangeBaseAddress = 5,
  kRangeStartEnd = 6,
  kRangeStartLength = 7,
};

// Columns of a DWARF package's index.
enum PackageSection : uint32_t {
  kPackageInfo = 1,
  kPackageAbbrev = 3,
  kPackageLine = 4,
  kPackageStrOffsets = 6,
  kPackageRangeLists = 8,  // version 5; in version 2 (GNU) the number means .debug_macro
};

}  // namespace pyrometer::dwarf
